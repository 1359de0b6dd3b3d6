//! Users' connect tokens and connections.

use serde::Serialize;

use super::detect::generation_of;
use super::plan::{Plan, Repeat};
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
        let plan = Plan {
            repeat: Repeat::IfLost,
            ..Plan::write("user_token")
        };
        self.act_by(plan, "/user/token", &body).await
    }

    /// Writes the user's own record, without a ban, over the one that lies under its key (v2; seen: he gets tokens again).
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
        self.act("channel_info", "/channel/info", &body).await
    }

    /// Ends all connections of (`uid`, `device_flag`) and empties its token: nobody is let in until another one is registered. On
    /// v2 only where a token was registered, and the connections live two seconds longer (both seen on a running server).
    ///
    /// v2 does so in its whole cluster, a v3 node to its own connections alone (source): there all nodes are told, and one that
    /// cannot be reached counts for nothing beside one that can.
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
            return self.act(NAME, PATH, &body).await;
        }
        let quits = self.nodes.all().iter().map(async |node| {
            // v2's has no part in it.
            if generation_of(&self.transport, node).await? != Generation::V3 {
                return Err(Error::Connect);
            }
            let call = Call::post(NAME, PATH, &body);
            v3::done(&self.transport.call(node, call).await?)
        });
        let mut outcome = Err(Error::Connect);
        for quit in futures_util::future::join_all(quits).await {
            match quit {
                Err(Error::Connect) => {}
                Ok(()) => outcome = Ok(()),
                Err(error) => return Err(error),
            }
        }
        outcome
    }
}
