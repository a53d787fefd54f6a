//! The drivers that want a parent's news of their tasks.
//!
//! Invariant: a driver hears of the link before it hears any news that come by it, because news of a parent
//! that it does not know mean nothing to it. It may hear of the link twice.

use std::collections::HashMap;

use pantala_core::TaskId;
use tokio::sync::mpsc;

use super::orders::LinkHandle;
use crate::task::Command;

#[derive(Default)]
pub(super) struct Followers {
    of: HashMap<TaskId, Follower>,
    /// Set once the parent has said who it is.
    greeted: Option<LinkHandle>,
}

/// A task's driver that wants the parent's news of that task.
struct Follower {
    commands: mpsc::Sender<Command>,
    /// Whether it knows of the link.
    told: bool,
}

impl Follower {
    /// Where it is to be told of the link.
    fn tell(&mut self) -> mpsc::Sender<Command> {
        self.told = true;
        self.commands.clone()
    }
}

impl Followers {
    /// A driver follows a task. One whose channel is full is told of the link as soon as it has room.
    pub fn follow(&mut self, task: TaskId, commands: mpsc::Sender<Command>) {
        let told = self
            .greeted
            .clone()
            .is_some_and(|link| commands.try_send(Command::LinkUp { link }).is_ok());
        self.of.insert(task, Follower { commands, told });
    }

    /// A driver wants no more news; whether it was one of these.
    pub fn unfollow(&mut self, task: TaskId) -> bool {
        self.of.remove(&task).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The parent has said who it is: these are to be told of the link now.
    pub fn greet(&mut self, link: LinkHandle) -> Vec<mpsc::Sender<Command>> {
        self.greeted = Some(link);
        let untold = self.of.values_mut().filter(|follower| !follower.told);
        untold.map(Follower::tell).collect()
    }

    pub fn is_greeted(&self) -> bool {
        self.greeted.is_some()
    }

    /// One that had no room when it could have been told of the link.
    pub fn untold(&self) -> Option<(LinkHandle, TaskId, mpsc::Sender<Command>)> {
        let link = self.greeted.clone()?;
        let (&task, follower) = self.of.iter().find(|(_, follower)| !follower.told)?;
        Some((link, task, follower.commands.clone()))
    }

    /// This driver has been told of the link, or is no more. Another one may have taken its place meanwhile.
    pub fn was_told(&mut self, task: TaskId, commands: &mpsc::Sender<Command>) {
        if let Some(follower) = self.of.get_mut(&task) {
            follower.told |= follower.commands.same_channel(commands);
        }
    }

    /// Where news of a task go, and the link if that driver must be told of it before. Before the greeting
    /// there are no news.
    pub fn of(&mut self, task: TaskId) -> Option<(mpsc::Sender<Command>, Option<LinkHandle>)> {
        let link = self.greeted.clone()?;
        let follower = self.of.get_mut(&task)?;
        let untold = (!follower.told).then_some(link);
        Some((follower.tell(), untold))
    }

    /// A driver follows a task by a link that has ended.
    pub fn follow_in_vain(&mut self, task: TaskId, commands: mpsc::Sender<Command>) {
        let told = false;
        self.of.insert(task, Follower { commands, told });
    }

    /// The link has ended: those who are to hear of that.
    pub fn end(self) -> impl Iterator<Item = mpsc::Sender<Command>> {
        self.of.into_values().map(|follower| follower.commands)
    }
}
