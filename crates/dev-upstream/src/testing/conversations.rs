//! Test controls of the conversation rows.

use super::super::state::State;

impl State {
    /// v3: `/conversation/list` and `/conversation/retry` tell these channels as `unresolved`, until this is called again. A pair is named by
    /// its stored id, see [`Dialect::person_channel_id`](crate::Dialect::person_channel_id).
    pub fn set_unresolved(&self, channel_ids: &[&str]) {
        let ids = channel_ids.iter().map(|id| (*id).to_owned());
        self.lock().unresolved = ids.collect();
    }

    /// v2: saves the rows of new pairs, as a real server does within a minute.
    pub fn save_conversations(&self) {
        self.lock().save_rows();
    }

    /// v2: loses the rows of new pairs that are not saved yet, as a real server does when its process is killed.
    pub fn lose_unsaved_conversations(&self) {
        self.lock().lose_unsaved_rows();
    }
}
