//! Groups of many members, and servers that take them out in a way of their own.

use std::time::Duration;

use dev_upstream::{Dialect, Fault, Options, Rule, V2Release};
use wukongim_gateway::store::ChannelStage;

use super::*;

async fn large(w: &World, count: usize) {
    w.create("alice").await.unwrap();
    for n in 0..count - 1 {
        w.upstream.state().join(G, &format!("m{n}"));
    }
    w.upstream.clear_calls();
}

fn count(writes: &[String], ending: &str) -> usize {
    writes.iter().filter(|path| path.ends_with(ending)).count()
}

in_every_world! {
    async fn a_delete_continues_while_wukongim_is_slow(w) {
        large(&w, 3).await;
        let path = "/channel/subscriber_remove_all";
        w.fault(Rule::exact(path, Fault::Hang).times(2));
        let caller = tokio::spawn({
            let channels = w.gateway.clone();
            async move { channels.delete("alice").await }
        });
        while w.upstream.calls_to(path).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        caller.abort();
        w.wait_idle().await;
        assert_eq!(w.stage().await, Some(ChannelStage::Deleted));
        assert!(w.members().is_empty() && w.is_disbanded());
        assert_eq!(w.upstream.calls_to(path).len(), 3);
    }
}

#[tokio::test]
async fn a_group_of_an_older_v2_is_emptied_by_its_member_list() {
    for release in V2Release::ALL {
        println!("{release:?}");
        let options = Options {
            release,
            ..Options::new(Dialect::V2)
        };
        let w = World::start_with(Kind::V2, options, database::Kind::Sqlite).await;
        large(&w, 250).await;
        w.delete("alice").await.unwrap();
        assert!(w.members().is_empty() && w.is_disbanded());
        assert_eq!(w.stage().await, Some(ChannelStage::Deleted));
        let expected = if release < V2Release::V2_2_5 { 3 } else { 0 };
        assert_eq!(count(&w.writes(), "subscriber_remove"), expected);
    }
}
