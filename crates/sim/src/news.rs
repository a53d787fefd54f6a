//! What parents tell their children of their pieces.

use pantala_window::{Event, ParentId};

use crate::{
    queue::{Happening, Index, Nanos},
    seat::News,
    world::World,
};

impl World {
    /// All children are told, a moment later and together with what else there is by then.
    pub(crate) fn announce(&mut self, s: Index, news: News) {
        let seat = &mut self.seats[s as usize];
        if seat.children.is_empty() {
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
        let news = std::mem::take(&mut seat.news);
        let children = std::mem::take(&mut seat.children);
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

    /// Tells one child alone.
    pub(crate) fn announce_on(&mut self, at: Index, news: News) {
        let link = &mut self.links[at as usize];
        link.news.push(news);
        if link.news.len() == 1 {
            let latency = link.latency;
            self.after(latency, Happening::News { link: at });
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
