//! The channel endpoints.

mod create;
mod deadlines;
mod delete;
mod ids;
mod members;
mod outsiders;
mod ownership;
mod roles;
mod store_down;
mod subscribers;

use dev_upstream::Dialect;

use crate::support::{TestApp, V2, V3, database};

/// What groups behave differently on: v2, v3 alone, and v3 with its manager port; and what they are kept in.
#[derive(Debug, Clone, Copy)]
struct Kind {
    dialect: Dialect,
    manager: bool,
    database: database::Kind,
}

impl Kind {
    /// Whether this upstream tells who is a member.
    fn tells_members(self) -> bool {
        self.dialect == V2 || self.manager
    }
}

/// Every kind there can be here.
fn kinds() -> Vec<Kind> {
    let on = |database| {
        [(V2, false), (V3, false), (V3, true)].map(|(dialect, manager)| Kind {
            dialect,
            manager,
            database,
        })
    };
    database::kinds().into_iter().flat_map(on).collect()
}

/// A gateway of each kind, to be tested one after the other; the output says which one is.
async fn each_kind() -> impl Iterator<Item = TestApp> {
    let mut apps = Vec::new();
    for kind in kinds() {
        apps.push((kind, start(kind).await));
    }
    let say = |(kind, _): &(Kind, TestApp)| println!("{kind:?}");
    apps.into_iter().inspect(say).map(|(_, app)| app)
}

async fn start(kind: Kind) -> TestApp {
    let builder = TestApp::builder().upstream(kind.dialect);
    let builder = builder.database(kind.database).await;
    builder.manager_port_if(kind.manager).start().await
}
