//! Adding and removing subscribers: permissions, counts, and upstream calls.

use wukongim_gateway::channels::Error;

use super::*;

in_every_world! {
    async fn only_new_members_are_counted_and_added(w) {
        w.create("alice").await.unwrap();
        w.listener.take();
        w.upstream.clear_calls();
        assert_eq!(w.add("alice", &["bob", "carol"]).await.unwrap(), 2);
        assert_eq!(w.listener.take(), [Told::Changed(G.into()), Told::Changed(G.into())]);
        assert_eq!(w.members(), ["alice", "bob", "carol"]);
        w.upstream.clear_calls();
        let told = if w.kind.tells_members() { 1 } else { 3 };
        assert_eq!(w.add("alice", &["bob", "dave", "alice"]).await.unwrap(), told);
        assert_eq!(w.members(), ["alice", "bob", "carol", "dave"]);
        assert_eq!(w.writes(), [w.kind.add_path()]);
        if w.kind.tells_members() {
            let sent = w.upstream.calls_to(w.kind.add_path())[0].body.to_string();
            assert!(sent.contains("dave") && !sent.contains("bob"), "{sent}");
            w.upstream.clear_calls();
            assert_eq!(w.add("alice", &["bob", "dave"]).await.unwrap(), 0);
            assert!(w.writes().is_empty(), "nothing to say");
        }
    }

    async fn only_members_are_counted_and_removed(w) {
        w.create("alice").await.unwrap();
        w.add("alice", &["bob", "carol"]).await.unwrap();
        w.listener.take();
        let told = if w.kind.tells_members() { 1 } else { 2 };
        assert_eq!(w.remove("alice", &["bob", "nobody"]).await.unwrap(), told);
        assert_eq!(w.listener.take(), [Told::Changed(G.into()), Told::Changed(G.into())]);
        assert_eq!(w.members(), ["alice", "carol"]);
        if w.kind.tells_members() {
            w.upstream.clear_calls();
            assert_eq!(w.remove("alice", &["bob", "nobody"]).await.unwrap(), 0);
            assert!(w.writes().is_empty());
        }
    }

    async fn only_owner_and_admin_manage(w) {
        w.create("alice").await.unwrap();
        w.add(ADMIN, &["bob"]).await.unwrap();
        w.upstream.clear_calls();
        for who in ["bob", "stranger"] {
            assert_is!(w.add(who, &["eve"]).await, Err(Error::NotOwner));
            assert_is!(w.add(who, &[who]).await, Err(Error::NotOwner));
            assert_is!(w.remove(who, &["carol"]).await, Err(Error::NotOwner));
            assert_is!(w.remove(who, &[who, "carol"]).await, Err(Error::NotOwner));
            assert_is!(w.remove(who, &["alice"]).await, Err(Error::NotOwner));
        }
        assert!(w.upstream.calls().is_empty());
        assert_eq!(w.remove(ADMIN, &["bob"]).await.unwrap(), 1);
        assert_eq!(w.open_mode().add("stranger", &["eve"]).await.unwrap(), 1);
        assert_eq!(w.open_mode().remove("bob", &["eve"]).await.unwrap(), 1);
    }

    async fn everybody_may_leave(w) {
        w.create("alice").await.unwrap();
        w.add("alice", &["bob"]).await.unwrap();
        assert_eq!(w.remove("bob", &["bob"]).await.unwrap(), 1);
        assert_eq!(w.members(), ["alice"]);
        let again = w.remove("bob", &["bob"]).await.unwrap();
        assert_eq!(again, u64::from(!w.kind.tells_members()));
        w.remove("stranger", &["stranger"]).await.unwrap();
        assert_eq!(w.members(), ["alice"]);
    }

    async fn the_owner_cannot_be_removed_and_no_other_uid_of_the_call_is(w) {
        w.create("alice").await.unwrap();
        w.add("alice", &["bob"]).await.unwrap();
        w.upstream.clear_calls();
        for who in ["alice", ADMIN] {
            assert_is!(w.remove(who, &["bob", "alice"]).await, Err(Error::OwnerCannotLeave));
            assert_is!(w.remove(who, &["alice"]).await, Err(Error::OwnerCannotLeave));
        }
        assert_is!(w.open_mode().remove("bob", &["alice"]).await, Err(Error::OwnerCannotLeave));
        assert!(w.writes().is_empty());
        assert_eq!(w.members(), ["alice", "bob"]);
    }

    async fn an_unknown_group_is_not_found_and_not_made(w) {
        for who in ["alice", ADMIN] {
            assert_is!(w.add(who, &["bob"]).await, Err(Error::NotFound));
            assert_is!(w.remove(who, &[who]).await, Err(Error::NotFound));
            assert_is!(w.remove(who, &["bob"]).await, Err(Error::NotFound));
        }
        assert_is!(w.open_mode().add("bob", &["bob"]).await, Err(Error::NotFound));
        assert!(w.writes().is_empty());
        assert!(w.upstream.state().flags(2, G).is_none());
    }

    async fn a_lost_or_disbanded_group_is_not_found_and_not_made(w) {
        w.create("alice").await.unwrap();
        w.upstream.state().disband(G);
        assert_is!(w.add("alice", &["bob"]).await, Err(Error::NotFound));
        w.upstream.state().forget_channel(G);
        w.upstream.clear_calls();
        assert_is!(w.add("alice", &["bob"]).await, Err(Error::NotFound));
        assert_is!(w.remove(ADMIN, &["bob"]).await, Err(Error::NotFound));
        assert!(w.writes().is_empty());
    }

    async fn only_an_admin_manages_a_group_without_an_owner(w) {
        w.made_by_somebody_else("mallory").await;
        assert_is!(w.add("mallory", &["bob"]).await, Err(Error::NotOwner));
        assert_is!(w.remove("bob", &["mallory"]).await, Err(Error::NotOwner));
        assert!(w.writes().is_empty());
        assert_eq!(w.add(ADMIN, &["bob"]).await.unwrap(), 1);
        assert_eq!(w.remove("mallory", &["mallory"]).await.unwrap(), 1, "anybody may leave");
        assert_eq!(w.members(), ["bob"]);
        assert_eq!(w.stage().await, None);
    }

    async fn a_full_group_accepts_no_uid_of_the_call(w) {
        w.create("alice").await.unwrap();
        let too_many = ["a", "b", "c", "d", "e", "f"];
        assert_is!(w.add("alice", &too_many).await, Err(Error::Full));
        if w.kind.tells_members() {
            assert_is!(w.add("alice", &too_many[..5]).await, Err(Error::Full));
            assert_eq!(w.add("alice", &["alice", "a", "b", "c", "d"]).await.unwrap(), 4);
            assert_is!(w.add("alice", &["e"]).await, Err(Error::Full));
            assert_eq!(w.add("alice", &["a"]).await.unwrap(), 0);
            assert_eq!(w.members(), ["a", "alice", "b", "c", "d"]);
        } else {
            assert_eq!(w.members(), ["alice"]);
        }
    }
}
