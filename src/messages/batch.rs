//! Sending many messages: order within a channel, channels side by side.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use super::send::{Claimed, Dispatched, audit};
use super::{Draft, Messages, SendError, Sent};
use crate::authorization::Denial;
use crate::domain::{ConversationKey, Uid};
use crate::wukongim::Error;

/// Channels of one batch that are worked on at the same time.
const SIDE_BY_SIDE: usize = 16;

/// One message of a batch: its place in it, who sends it, and what.
type Item = (usize, Uid, Draft);

impl Messages {
    /// Sends every draft for its sender; the results are in the order of the drafts.
    pub async fn send_batch(&self, drafts: Vec<(Uid, Draft)>) -> Vec<Result<Sent, SendError>> {
        let count = drafts.len();
        let mut lanes: Vec<Vec<Item>> = Vec::new();
        let mut lane_of = HashMap::new();
        let mut audits = Vec::with_capacity(count);
        for (place, (sender, draft)) in drafts.into_iter().enumerate() {
            audits.push(audit(&sender, &draft));
            let key = ConversationKey::of(&sender, &draft.channel);
            let lane = *lane_of.entry(key).or_insert_with(|| {
                lanes.push(Vec::new());
                lanes.len() - 1
            });
            lanes[lane].push((place, sender, draft));
        }
        let mut results: Vec<Option<Result<Sent, SendError>>> = (0..count).map(|_| None).collect();
        let mut waiting = lanes.into_iter();
        let mut running: FuturesUnordered<_> = waiting
            .by_ref()
            .take(SIDE_BY_SIDE)
            .map(|lane| self.send_lane(lane))
            .collect();
        while let Some(done) = running.next().await {
            for (place, result) in done {
                if let Some(audit) = &mut audits[place] {
                    audit.ended(&result);
                }
                results[place] = Some(result);
            }
            if let Some(lane) = waiting.next() {
                running.push(self.send_lane(lane));
            }
        }
        let lost = || Err(SendError::Upstream(Error::Lost));
        results
            .into_iter()
            .map(|result| result.unwrap_or_else(lost))
            .collect()
    }

    /// All messages of one channel, one after the other; then all their confirmations together.
    async fn send_lane(&self, lane: Vec<Item>) -> Vec<(usize, Result<Sent, SendError>)> {
        let mut results = Vec::with_capacity(lane.len());
        let mut handed_over: Vec<(usize, Uid, Dispatched)> = Vec::with_capacity(lane.len());
        let mut allowed: HashMap<Uid, Result<(), Denial>> = HashMap::new();
        let mut broken = None;
        for (place, sender, draft) in lane {
            if let Some(error) = &broken {
                // What follows a message that WuKongIM could not take would overtake it.
                results.push((place, Err(SendError::Upstream(Error::clone(error)))));
                continue;
            }
            if !allowed.contains_key(&sender) {
                let actor = draft.actor.as_ref();
                let answer = self
                    .authorization
                    .may_send(&sender, actor, &draft.channel)
                    .await;
                allowed.insert(sender.clone(), answer);
            }
            if let Some(Err(denial)) = allowed.get(&sender) {
                results.push((place, Err(SendError::Denied(denial.clone()))));
                continue;
            }
            let dispatched = match self.try_dispatch(&sender, &draft).await {
                Claimed::Ready(dispatched) => dispatched,
                Claimed::Busy(_) => {
                    // Perhaps this very batch holds the number: settle its messages before waiting, and no two batches can
                    // wait for each other.
                    self.settle_all(&mut handed_over, &mut results).await;
                    self.dispatch(&sender, draft).await
                }
            };
            if let Dispatched::Settled(Err(SendError::Upstream(error))) = &dispatched {
                broken = Some(error.clone());
            }
            handed_over.push((place, sender, dispatched));
        }
        self.settle_all(&mut handed_over, &mut results).await;
        results
    }

    async fn settle_all(
        &self,
        handed_over: &mut Vec<(usize, Uid, Dispatched)>,
        results: &mut Vec<(usize, Result<Sent, SendError>)>,
    ) {
        let settling = handed_over
            .drain(..)
            .map(|(place, sender, dispatched)| async move {
                (place, self.settle(&sender, dispatched).await)
            });
        results.extend(join_all(settling).await);
    }
}
