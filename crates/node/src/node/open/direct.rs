//! Answers that are for one reader alone, straight from the origin. Nothing of them is kept or shared.

use pantala_core::ByteRange;
use pantala_origin::{OriginRequest, OriginResponse, Refused};
use pantala_store::{Charge, Holder};

use crate::{
    Place,
    direct::Direct,
    error,
    node::{ContentRequest, Node, Opened, Range},
    run::ORIGIN_BUFFER,
};

impl Node {
    /// Memory for what a transfer from the origin reads ahead.
    pub(super) async fn origin_buffer(&self) -> Charge {
        let charge = self.inner.ports.store.budget().charge(ORIGIN_BUFFER).await;
        charge.held_by(Holder::Origins)
    }

    pub(in crate::node) async fn direct(&self, request: ContentRequest) -> Result<Opened, Refused> {
        if !request.origin_allowed {
            return Err(error::nobody_has_it().into());
        }
        let (range, suffix) = match request.range {
            Some(Range::Bytes(range)) => (range, None),
            Some(Range::Suffix(last)) => (ByteRange::ALL, Some(last)),
            None => (ByteRange::ALL, None),
        };
        let asked = OriginRequest {
            headers: request.headers.clone(),
            range,
            suffix,
            follow: request.follow,
            ask_again: request.ask_again,
            interim: request.interim.clone(),
            asker: request.asker,
            ..OriginRequest::new(request.url.clone())
        };
        let place = self.inner.alone.enter().await;
        let place = place.with(self.origin_buffer().await);
        let response = self.inner.ports.origin.get_or_refusal(asked).await?;
        Ok(self.opened_direct(response, place, &request))
    }

    /// A place for an answer that is passed on, with the memory for what is read ahead of it; `None` where there is none
    /// without waiting.
    pub fn place_for_passed(&self) -> Option<Place> {
        let place = self.inner.alone.try_enter()?;
        let charge = self.inner.ports.store.budget().try_charge(ORIGIN_BUFFER)?;
        Some(place.with(charge.held_by(Holder::Origins)))
    }

    /// Gives an answer that turned out to be for its own reader to that reader. `None` where the answer is of no
    /// use: the range that was asked of the origin was aligned for pieces, or there is no place, and then the
    /// transfer must not take memory while it waits for one.
    pub(super) fn for_one(
        &self,
        response: OriginResponse,
        request: &ContentRequest,
    ) -> Option<Opened> {
        if request.range.is_some() {
            return None;
        }
        let place = self.inner.alone.try_enter()?;
        Some(self.opened_direct(response, place, request))
    }

    fn opened_direct(
        &self,
        response: OriginResponse,
        place: Place,
        request: &ContentRequest,
    ) -> Opened {
        let limits = self.inner.rates.direct(request.limit_rate);
        let direct = Direct::new(response, place, request.range, request.digest, limits);
        Opened::Direct(Box::new(direct))
    }
}
