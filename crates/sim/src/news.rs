//! What parents tell their children of their pieces.

use pantala_core::PieceIndex;
use pantala_window::{Event, ParentId};

use crate::{
    queue::{Happening, Index, Nanos},
    seat::News,
    socket::Segment,
    world::World,
};

impl World {
    /// All children are told, a moment later and together with what else there is by then.
    pub(crate) fn announce(&mut self, s: Index, news: News) {
        let seat = &mut self.seats[s as usize];
        if seat.children.is_empty() {
            return;
        }
        if self.scenario.network.congestion.is_some() {
            for child in 0..seat.children.len() {
                let link = self.seats[s as usize].children[child];
                self.announce_on(link, news);
            }
            return;
        }
        seat.news.push(news);
        if !std::mem::replace(&mut seat.news_due, true) {
            let gather = self.scenario.gather_news.as_nanos() as Nanos;
            self.after(gather + self.latency, Happening::Announce { seat: s });
        }
    }

    /// What a seat gathered reaches its children.
    pub(crate) fn spread_news(&mut self, s: Index) {
        let seat = &mut self.seats[s as usize];
        seat.news_due = false;
        let mut news = std::mem::take(&mut seat.news);
        gather(&mut news);
        let children = std::mem::take(&mut seat.children);
        self.bring_children(&children);
        for &at in &children {
            let link = &mut self.links[at as usize];
            if link.latency > self.latency {
                // It takes longer to another data centre.
                let (first, more) = (link.news.is_empty(), link.latency - self.latency);
                link.news.extend_from_slice(&news);
                if first {
                    self.after(more, Happening::News { link: at });
                }
            } else {
                let child = link.child;
                self.hear_news(child, at, &news);
            }
        }
        // Nobody comes or goes meanwhile, but deciding may have hung up on somebody.
        let links = &self.links;
        let seat = &mut self.seats[s as usize];
        seat.children = children;
        seat.children.retain(|&at| links[at as usize].up);
        seat.news = news;
        seat.news.clear();
    }

    /// Tells one child, behind what was sent to it before.
    fn announce_on(&mut self, at: Index, news: News) {
        let link = &mut self.links[at as usize];
        link.news.push(news);
        if link.news.len() == 1 {
            let conn = link.conn;
            self.write(conn, Segment::News { link: at });
        }
    }

    pub(crate) fn news(&mut self, at: Index) {
        let link = &mut self.links[at as usize];
        let child = link.child;
        let news = std::mem::take(&mut link.news);
        self.hear_news(child, at, &news);
    }

    fn hear_news(&mut self, child: Index, at: Index, news: &[News]) {
        if !self.links[at as usize].up || !self.seats[child as usize].alive {
            return;
        }
        let parent = ParentId(u64::from(at));
        for &news in news {
            let event = match news {
                News::Holds(first, count) => Event::ParentHolds {
                    parent,
                    first,
                    count,
                },
                News::Receiving(piece) => Event::ParentReceiving { parent, piece },
                News::Lost(first) => Event::ParentLost {
                    parent,
                    first,
                    count: 1,
                },
            };
            self.hint(child, event);
        }
        self.drain(child);
    }
}

/// Says the same with fewer words: pieces in a row are one, and of what is held nobody need hear that
/// it is being received. Only where nothing was lost, for there the order matters.
fn gather(news: &mut Vec<News>) {
    if news.len() < 2 || news.iter().any(|news| matches!(news, News::Lost(_))) {
        return;
    }
    let mut holds: Vec<(u32, u32)> = Vec::new();
    for news in news.iter() {
        if let News::Holds(first, count) = news {
            holds.push((first.get(), first.get() + count));
        }
    }
    holds.sort_unstable();
    holds.dedup_by(|next, run| {
        let meets = next.0 <= run.1;
        if meets {
            run.1 = run.1.max(next.1);
        }
        meets
    });
    news.retain(|news| match news {
        News::Receiving(piece) => {
            let piece = piece.get();
            !holds
                .iter()
                .any(|&(first, end)| first <= piece && piece < end)
        }
        _ => false,
    });
    let runs = holds.iter();
    news.extend(runs.map(|&(first, end)| News::Holds(PieceIndex::new(first), end - first)));
}
