//! A three-node v2 cluster loses one node after the other, and no acknowledged message. `tests/live/failover.sh` runs this, and
//! docs/RELIABILITY.md tells what came of it.
//!
//! Runs where `WUKONGIM_V2_URL` names three nodes and `WUKONGIM_V2_NODE` a program that is called with `kill N`, `revive N`, `hang N` and
//! `wake N`, N from 1 (a node that is revived or woken has answered when the program ends). It writes to the servers.

mod traffic;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use tokio::sync::{Mutex, watch};

use self::traffic::{Channel, Sent, Stored, Way, channels, send, send_all, stored};
use crate::support::real::{Server, TestApp, each_server, variable};

/// How long the cluster is left as it is before the next thing happens to it.
const PHASE: Duration = Duration::from_secs(15);
/// Retries under way at the same time.
const TOGETHER: usize = 64;
/// How long retries go on after the last node came back. A v2.2.5 may leave a channel without copies for six minutes (seen).
const RETRIES: Duration = Duration::from_mins(15);
/// How long WuKongIM is given to store what it has acknowledged itself.
const LATE: Duration = Duration::from_mins(1);

/// One test at a time has the cluster.
static CLUSTER: Mutex<()> = Mutex::const_new(());

/// What happens to a node, and what undoes it.
#[derive(Clone, Copy)]
struct Trouble(&'static str, &'static str);

const DEATH: Trouble = Trouble("kill", "revive");
const HANGING: Trouble = Trouble("hang", "wake");

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a WuKongIM v2 cluster"]
async fn no_acknowledged_message_is_lost_while_nodes_are_killed() {
    gateway_keeps_its_word(DEATH).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a WuKongIM v2 cluster"]
async fn no_acknowledged_message_is_lost_while_nodes_hang() {
    gateway_keeps_its_word(HANGING).await;
}

/// Nothing is asserted of what is not ours: the figure is for comparison.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a WuKongIM v2 cluster"]
async fn what_wukongim_itself_acknowledges_and_loses_is_counted() {
    let (program, server) = cluster();
    let _cluster = CLUSTER.lock().await;
    let app = Arc::new(TestApp::start(&server).await);
    let channels = channels(&app).await;
    let sent = under_trouble(&app, Way::past(&server), &channels, &program, DEATH).await;
    tokio::time::sleep(LATE).await;
    let stored = stored(&app, &channels).await;
    let acknowledged = sent.iter().filter(|sent| sent.answers[0].status == 200);
    let (kept, lost): (Vec<_>, Vec<_>) = acknowledged.partition(|sent| {
        let found = stored.get(&sent.number).map_or(&[][..], Vec::as_slice);
        found.iter().any(|(_, id, _)| *id == sent.answers[0].id)
    });
    println!(
        "WuKongIM itself: {} acknowledged, {} of them lost",
        kept.len() + lost.len(),
        lost.len()
    );
}

async fn gateway_keeps_its_word(trouble: Trouble) {
    let (program, server) = cluster();
    let _cluster = CLUSTER.lock().await;
    let app = Arc::new(TestApp::start(&server).await);
    let channels = channels(&app).await;
    let mut sent = under_trouble(&app, Way::Gateway, &channels, &program, trouble).await;
    let first = by_status(&sent);
    assert!(
        first.keys().all(|status| [200, 503, 504].contains(status)),
        "{first:?}"
    );
    retry(&app, &channels, &mut sent).await;
    verdict(&sent, &stored(&app, &channels).await);
}

fn cluster() -> (String, Server) {
    let program = variable("WUKONGIM_V2_NODE").expect("WUKONGIM_V2_NODE");
    let server = each_server().into_iter().find(Server::is_v2);
    let server = server.expect("WUKONGIM_V2_URL");
    assert_eq!(server.urls.len(), 3, "three nodes");
    (program, server)
}

/// The traffic while the first node is in trouble and back, and then the second. A gateway that has noticed leaves such a node alone.
async fn under_trouble(
    app: &Arc<TestApp>,
    way: Way,
    channels: &[Channel],
    program: &str,
    trouble: Trouble,
) -> Vec<Sent> {
    let (began, is_gateway) = (Instant::now(), matches!(way, Way::Gateway));
    let (stop, stopped) = watch::channel(false);
    let sending = tokio::spawn(send_all(app.clone(), way, channels.to_vec(), stopped));
    let mut phases = vec![(Duration::ZERO, "all are well".to_owned())];
    tokio::time::sleep(PHASE).await;
    for node in ["1", "2"] {
        for (what, is_left_alone) in [(trouble.0, 1.0), (trouble.1, 0.0)] {
            node_is(program, what, node).await;
            phases.push((began.elapsed(), format!("{what} {node}")));
            tokio::time::sleep(PHASE).await;
            let ejected = app.metric(&format!("gateway_upstream_ejected{{node=\"n{node}\"}}"));
            if is_gateway {
                assert_eq!(ejected, Some(is_left_alone), "{what} {node}");
            }
        }
    }
    stop.send(true).unwrap();
    let sent = sending.await.unwrap();
    tell(&phases, &sent);
    sent
}

/// A line for each phase.
fn tell(phases: &[(Duration, String)], sent: &[Sent]) {
    for (index, (from, name)) in phases.iter().enumerate() {
        let until = phases.get(index + 1).map_or(Duration::MAX, |next| next.0);
        let within = sent
            .iter()
            .filter(|sent| sent.at >= *from && sent.at < until);
        let within: Vec<_> = within.collect();
        let mut took: Vec<_> = within.iter().map(|sent| sent.took).collect();
        took.sort_unstable();
        let part = |hundredth: usize| took.get(took.len() * hundredth / 100).copied();
        let failed = within.iter().filter(|sent| sent.answers[0].status != 200);
        let channels: BTreeSet<_> = failed.map(|sent| sent.channel).collect();
        println!(
            "{from:>6.1?} {name:<12} {:>4} sent, by status {:?}, others than 200 in {} channels, p50 {:.0?}, p99 {:.0?}",
            within.len(),
            by_status(within.iter().copied()),
            channels.len(),
            part(50).unwrap_or_default(),
            part(99).unwrap_or_default(),
        );
    }
}

fn by_status<'a>(sent: impl IntoIterator<Item = &'a Sent>) -> BTreeMap<u16, usize> {
    sent.into_iter().fold(BTreeMap::new(), |mut all, sent| {
        *all.entry(sent.answers[0].status).or_default() += 1;
        all
    })
}

/// What was told as not stored, or as not known, is sent again with its number until it is acknowledged.
async fn retry(app: &TestApp, channels: &[Channel], sent: &mut [Sent]) {
    let (began, until) = (Instant::now(), Instant::now() + RETRIES);
    stream::iter(sent)
        .for_each_concurrent(TOGETHER, |message| async move {
            while message.answers.last().is_none_or(|last| last.status != 200) {
                let number = &message.number;
                assert!(Instant::now() < until, "{number} is never acknowledged");
                let answer = send(app, &channels[message.channel], number).await;
                message.answers.push(answer);
            }
        })
        .await;
    println!("all acknowledged {:.1?} later", began.elapsed());
}

fn verdict(sent: &[Sent], stored: &HashMap<String, Vec<Stored>>) {
    let (mut lost, mut doubled, mut timeouts, mut duplicates) = (Vec::new(), Vec::new(), 0, 0);
    for message in sent {
        let found = stored.get(&message.number).map_or(&[][..], Vec::as_slice);
        let last = message.answers.last().unwrap();
        if !found.contains(&(message.channel, last.id.clone(), last.seq)) {
            lost.push((message.at, message.channel, &message.answers, found));
        }
        if message.answers.len() == 1 && found.len() > 1 {
            doubled.push((message.at, message.channel, &message.answers, found));
        }
        duplicates += found.len().saturating_sub(1);
        let is_timeout = |answer: &&traffic::Answer| answer.status == 504;
        timeouts += message.answers.iter().filter(is_timeout).count();
    }
    let at_once = sent.iter().filter(|sent| sent.answers.len() == 1).count();
    println!(
        "{at_once} acknowledged at once, {} after retries, {} of them lost; {timeouts} answers of 504, {duplicates} duplicates in the store",
        sent.len() - at_once,
        lost.len()
    );
    assert!(lost.is_empty(), "acknowledged and lost: {lost:#?}");
    assert!(doubled.is_empty(), "stored more than once: {doubled:#?}");
    assert!(duplicates <= timeouts);
    let all: usize = stored.values().map(Vec::len).sum();
    assert_eq!(all, sent.len() + duplicates, "nothing else was stored");
}

async fn node_is(program: &str, what: &'static str, node: &'static str) {
    let mut command = Command::new(program);
    command.args([what, node]);
    let done = tokio::task::spawn_blocking(move || command.status()).await;
    assert!(done.unwrap().unwrap().success(), "{what} {node}");
}
