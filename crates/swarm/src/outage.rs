//! What is known of an origin that does not serve: what one member met is told to all, so that each
//! need not find it out by itself. Decides nothing about members, and asks nobody.
//!
//! A lease goes from member to member when transfers fail: it is the origin's failures that are
//! counted here, whoever met them. Only what the origin itself said or failed to do counts. That a
//! member's own credentials are refused, or that it may not ask the origin, is that member's affair.

use std::time::Duration;

use pantala_core::{Error, Kind, Time, Who};

/// Failed transfers in a row, whoever made them, until the origin is taken for dead. One member
/// alone gives up after as many.
const FAILURES: u32 = 3;
/// How often in a row leases may move because no byte came: the timeout doubles each time, so that
/// an origin that is only slow gets its time.
const STALLS: u32 = 4;

/// The failures of one task's origin since it last delivered a piece.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    failures: u32,
    /// When the last failure was counted. One that was not counted leaves it as it is: otherwise each
    /// transfer would hide the next one that it overlaps, and there would be no end of them.
    at: Time,
    stalls: u32,
    /// What the origin said or did last.
    error: Option<Error>,
    /// Until when nobody asks it, and whoever needs it is told the error.
    until: Time,
}

/// What follows from a failed transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The member's own affair: others may have a better way to the origin.
    Personal,
    /// Another member may try.
    Doubtful,
    /// The origin does not serve, or asks to be left alone for a while: all are told.
    Certain,
}

impl Outage {
    /// A transfer failed whose lease was granted at `since`. `private`: the origin may have refused
    /// this member alone. For `rest` the origin is not asked again once it has failed for all.
    pub fn failed(
        &mut self,
        error: &Error,
        private: bool,
        since: Time,
        rest: Duration,
        now: Time,
    ) -> Verdict {
        let refused = !error.is_retryable();
        if error.who() != Who::Origin || (refused && (private || error.kind() == Kind::Denied)) {
            return Verdict::Personal;
        }
        // Transfers that ran side by side fail of the same cause.
        if self.failures == 0 || since >= self.at {
            self.failures += 1;
            self.at = now;
        }
        self.error = Some(error.clone());
        let pause = error.pause();
        if !refused && pause.is_none() && self.failures < FAILURES {
            return Verdict::Doubtful;
        }
        self.until = self.until.max(now + pause.unwrap_or(rest));
        Verdict::Certain
    }

    /// How long a lease holder may live without a byte from the origin, where `usual` is the time
    /// for an origin that was not found slow.
    pub fn patience(&self, usual: Duration) -> Duration {
        usual * (1 << self.stalls.min(STALLS))
    }

    /// A lease holder that lives got no byte for that long. Says whether the origin is to blame.
    pub fn stalled(&mut self, rest: Duration, now: Time) -> bool {
        self.stalls += 1;
        if self.stalls < STALLS {
            return false;
        }
        let what = "sent no byte to any of several peers, one after the other";
        self.error = Some(Error::new(Who::Origin, Kind::Timeout, what));
        self.until = self.until.max(now + rest);
        true
    }

    /// Bytes came from the origin.
    pub fn bytes_came(&mut self) {
        self.stalls = 0;
    }

    /// A piece came from the origin.
    pub fn is_over(&mut self) {
        *self = Self::default();
    }

    /// The error for whoever needs the origin, while it is not to be asked.
    pub fn forbids(&self, now: Time) -> Option<&Error> {
        self.error.as_ref().filter(|_| now < self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn error(kind: Kind) -> Error {
        Error::new(Who::Origin, kind, "failed")
    }

    fn fail(outage: &mut Outage, error: &Error, since: u64, now: u64) -> Verdict {
        outage.failed(error, false, at(since), REST, at(now))
    }

    #[test]
    fn three_failures_of_whoever_are_the_origins_end() {
        let (mut outage, refused) = (Outage::default(), error(Kind::Unreachable));
        assert_eq!(fail(&mut outage, &refused, 0, 1000), Verdict::Doubtful);
        assert_eq!(fail(&mut outage, &refused, 1000, 2000), Verdict::Doubtful);
        assert!(outage.forbids(at(2000)).is_none());
        assert_eq!(fail(&mut outage, &refused, 2000, 3000), Verdict::Certain);
        assert_eq!(outage.forbids(at(3999)), Some(&refused));
        assert!(outage.forbids(at(4000)).is_none());
        // Whoever tries again and fails has not to fail three times.
        assert_eq!(fail(&mut outage, &refused, 4000, 5000), Verdict::Certain);
        outage.is_over();
        assert_eq!(fail(&mut outage, &refused, 6000, 7000), Verdict::Doubtful);
    }

    #[test]
    fn transfers_side_by_side_fail_once() {
        let (mut outage, refused) = (Outage::default(), error(Kind::Unreachable));
        for now in [1000, 1001, 1002, 1003] {
            assert_eq!(fail(&mut outage, &refused, 0, now), Verdict::Doubtful);
        }
    }

    #[test]
    fn a_transfer_that_was_not_counted_hides_no_other() {
        let (mut outage, refused) = (Outage::default(), error(Kind::Unreachable));
        assert_eq!(fail(&mut outage, &refused, 0, 1000), Verdict::Doubtful);
        // It ran beside the first one.
        assert_eq!(fail(&mut outage, &refused, 500, 1500), Verdict::Doubtful);
        // These began after that had failed.
        assert_eq!(fail(&mut outage, &refused, 1000, 2000), Verdict::Doubtful);
        assert_eq!(fail(&mut outage, &refused, 1500, 2500), Verdict::Doubtful);
        assert_eq!(fail(&mut outage, &refused, 2000, 3000), Verdict::Certain);
    }

    #[test]
    fn an_origin_that_asks_for_a_pause_has_it_from_all() {
        let (mut outage, busy) = (Outage::default(), error(Kind::Status(429)));
        let busy = busy.retry_after(Duration::from_secs(7));
        assert_eq!(fail(&mut outage, &busy, 0, 1000), Verdict::Certain);
        assert_eq!(outage.forbids(at(7999)), Some(&busy));
        assert!(outage.forbids(at(8000)).is_none());
    }

    #[test]
    fn what_one_member_is_refused_says_nothing_of_the_origin() {
        let mut outage = Outage::default();
        let denied = error(Kind::Denied);
        assert_eq!(fail(&mut outage, &denied, 0, 1), Verdict::Personal);
        let gone = error(Kind::NotFound);
        let verdict = outage.failed(&gone, true, at(0), REST, at(1));
        assert_eq!(verdict, Verdict::Personal);
        assert!(outage.forbids(at(1)).is_none());
        assert_eq!(fail(&mut outage, &gone, 0, 1), Verdict::Certain);
    }

    #[test]
    fn a_slow_origin_gets_its_time() {
        let mut outage = Outage::default();
        let mut all = Duration::ZERO;
        loop {
            all += outage.patience(REST);
            if outage.stalled(REST, at(0)) {
                break;
            }
        }
        assert_eq!(all, REST * 15);
        outage.bytes_came();
        assert_eq!(outage.patience(REST), REST);
    }
}
