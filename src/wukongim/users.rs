//! Users' connect tokens and connections.

use serde::Serialize;

use super::call_policy::{CallPolicy, Retry};
use super::transport::Call;
use super::{Client, Error, Generation, v3};
use crate::domain::{ChannelType, Uid};

impl Client {
    /// Registers `token` for (`uid`, `device_flag`). With `master` every live connection of that device is kicked.
    pub async fn register_token(
        &self,
        uid: &Uid,
        token: &str,
        device_flag: u8,
        master: bool,
    ) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            uid: &'a str,
            token: &'a str,
            device_flag: u8,
            device_level: u8,
        }
        let body = Body {
            uid: uid.as_str(),
            token,
            device_flag,
            device_level: u8::from(master),
        };
        let policy = CallPolicy {
            retry: Retry::IfLost,
            ..CallPolicy::write("user_token")
        };
        self.post_command_by(policy, "/user/token", &body).await
    }

    /// Overwrites the record under the user's key with the user's own, without a ban (v2; seen: the user gets tokens again).
    pub async fn write_user_record(&self, uid: &Uid) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            channel_id: &'a str,
            channel_type: u8,
        }
        let body = Body {
            channel_id: uid.as_str(),
            channel_type: ChannelType::Person.number(),
        };
        self.post_command("channel_info", "/channel/info", &body)
            .await
    }

    /// Ends all connections of (`uid`, `device_flag`) and clears its token, so that no client can connect until another one is registered.
    /// v2 does so only where a token was registered, and its connections last two seconds longer (both seen on a running server).
    ///
    /// v2 does so in its whole cluster, a v3 node only for its own connections (source). So all v3 nodes are called, and unreachable ones
    /// are ignored if at least one succeeds.
    pub async fn quit_device(&self, uid: &Uid, device_flag: u8) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            uid: &'a str,
            device_flag: u8,
        }
        const NAME: &str = "device_quit";
        const PATH: &str = "/user/device_quit";
        let body = Body {
            uid: uid.as_str(),
            device_flag,
        };
        if self.generation().await? == Generation::V2 {
            return self.post_command(NAME, PATH, &body).await;
        }
        let quits = self.nodes.all().iter().map(async |node| {
            node.check_generation().await?;
            let call = Call::post(NAME, PATH, &body);
            v3::command_result(&node.call(call).await?)
        });
        let mut outcome = Err(Error::Connect);
        for quit in futures_util::future::join_all(quits).await {
            match quit {
                Err(Error::Connect | Error::OtherGeneration) => {}
                Ok(()) => outcome = Ok(()),
                Err(error) => return Err(error),
            }
        }
        outcome
    }
}
