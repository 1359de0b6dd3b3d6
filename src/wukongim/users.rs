//! Users' connect tokens and connections.

use futures_util::future::join_all;
use serde_json::json;

use super::call::{Call, Policy, Retry};
use super::dialect::v3;
use super::{Client, Error, Generation};
use crate::domain::Uid;

impl Client {
    /// Registers `token` for (`uid`, `device_flag`). With `master` every live connection of that device is kicked.
    pub async fn register_token(
        &self,
        uid: &Uid,
        token: &str,
        device_flag: u8,
        master: bool,
    ) -> Result<(), Error> {
        let body = json!({
            "uid": uid.as_str(),
            "token": token,
            "device_flag": device_flag,
            "device_level": u8::from(master),
        });
        let policy = Policy::of("user_token", Retry::IfLost);
        self.post_command_by(policy, "/user/token", &body).await
    }

    /// Overwrites the record under the user's key with the user's own, without a ban (v2; seen: the user gets tokens again).
    pub async fn write_user_record(&self, uid: &Uid) -> Result<(), Error> {
        let body = json!({"channel_id": uid.as_str(), "channel_type": 1});
        self.post_command("channel_info", "/channel/info", &body)
            .await
    }

    /// Ends all connections of (`uid`, `device_flag`) and clears its token, so that no client can connect until another one is registered.
    /// v2 does so only where a token was registered, and its connections last two seconds longer (both seen on a running server).
    ///
    /// v2 does so in its whole cluster, a v3 node only for its own connections (source). So all v3 nodes are called, and unreachable ones
    /// are ignored if at least one succeeds.
    pub async fn quit_device(&self, uid: &Uid, device_flag: u8) -> Result<(), Error> {
        const NAME: &str = "device_quit";
        const PATH: &str = "/user/device_quit";
        let body = json!({"uid": uid.as_str(), "device_flag": device_flag});
        if self.generation().await? == Generation::V2 {
            return self.post_command(NAME, PATH, &body).await;
        }
        let quits = self.nodes.all().iter().map(async |node| {
            node.check_generation().await?;
            let call = Call::post(NAME, PATH, &body);
            v3::command_result(&node.call(call).await?)
        });
        let mut outcome = Err(Error::Connect);
        for quit in join_all(quits).await {
            match quit {
                Err(Error::Connect | Error::OtherGeneration) => {}
                Ok(()) => outcome = Ok(()),
                Err(error) => return Err(error),
            }
        }
        outcome
    }
}
