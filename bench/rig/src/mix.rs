//! The mixed traffic of the soak and the storm: requests, users and shares. Knows nothing of answers.

use std::fmt::Write as _;
use std::rc::Rc;

/// Groups that are written to.
const GROUPS: usize = 50;
/// Messages of one batch.
const BATCH: usize = 10;
/// Messages of a wide one.
const WIDE: usize = 16;
/// Messages of one page.
pub const PAGE: usize = 50;
/// `{"type":1,"content":"a message of the benchmark, as long as people write them"}`
const PAYLOAD: &str = "eyJ0eXBlIjoxLCJjb250ZW50IjoiYSBtZXNzYWdlIG9mIHRoZSBiZW5jaG1hcmssIGFzIGxvbmcgYXMgcGVvcGxlIHdyaXRlIHRoZW0ifQ==";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    SendToGroup,
    SendToPerson,
    Batch,
    Sync,
    Config,
    /// A send whose payload is no base64.
    Invalid,
    /// A send without a token.
    Anonymous,
}

/// A request, and what its answer is judged by.
pub struct Asked {
    pub kind: Kind,
    pub bytes: Vec<u8>,
    /// The clientMsgNo of each message in it.
    pub numbers: Vec<String>,
    /// Sent before, with an answer that leaves open what became of it.
    pub repeated: bool,
}

/// Makes requests, one after the other, for always.
pub struct Mix {
    tokens: Rc<[String]>,
    run: String,
    count: usize,
    random: u64,
    /// The only group that is written to and read.
    only: Option<String>,
}

impl Mix {
    /// Of the users with these tokens, `u000`, `u001`, …; `run` makes its clientMsgNo differ from every other mix's.
    pub fn new(tokens: Rc<[String]>, run: &str) -> Self {
        Self {
            tokens,
            run: run.to_owned(),
            count: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            only: None,
        }
    }

    /// Sends to one group, and reads of it: half of each.
    pub fn of_group(tokens: Rc<[String]>, run: &str, group: &str) -> Self {
        Self {
            only: Some(group.to_owned()),
            ..Self::new(tokens, run)
        }
    }

    /// xorshift: below `below`.
    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % below as u64).unwrap_or(0)
    }

    fn number(&mut self) -> String {
        self.count += 1;
        format!("{}-{:08}", self.run, self.count)
    }

    /// The next request.
    pub fn next(&mut self) -> Asked {
        let user = self.random(self.tokens.len());
        if let Some(only) = self.only.clone() {
            return match self.random(2) {
                0 => self.send(Kind::SendToGroup, user, &only, 2, PAYLOAD),
                _ => self.sync(user, &only),
            };
        }
        match self.random(100) {
            0..45 => {
                let group = self.group();
                self.send(Kind::SendToGroup, user, &group, 2, PAYLOAD)
            }
            45..65 => self.send(
                Kind::SendToPerson,
                user,
                &format!("peer{user:03}"),
                1,
                PAYLOAD,
            ),
            65..70 => {
                let groups = [self.group(), self.group()];
                self.batch(user, &groups, BATCH)
            }
            70..85 => self.sync(user, "history"),
            85..95 => self.asked(Kind::Config, "GET", "/config", Some(user), "", Vec::new()),
            95..97 => self.send(Kind::Invalid, user, "peer000", 1, "no base64!"),
            _ => {
                let (body, number) = self.message("peer000", 1, PAYLOAD);
                let numbers = vec![number];
                self.asked(
                    Kind::Anonymous,
                    "POST",
                    "/message/send",
                    None,
                    &body,
                    numbers,
                )
            }
        }
    }

    fn group(&mut self) -> String {
        format!("bench-group{:03}", self.random(GROUPS))
    }

    fn message(&mut self, id: &str, channel_type: u8, payload: &str) -> (String, String) {
        let number = self.number();
        let body = format!(
            r#"{{"channelId":"{id}","channelType":{channel_type},"payload":"{payload}","clientMsgNo":"{number}"}}"#
        );
        (body, number)
    }

    fn send(
        &mut self,
        kind: Kind,
        user: usize,
        id: &str,
        channel_type: u8,
        payload: &str,
    ) -> Asked {
        let (body, number) = self.message(id, channel_type, payload);
        let numbers = vec![number];
        self.asked(kind, "POST", "/message/send", Some(user), &body, numbers)
    }

    /// A message each to as many groups as the gateway sends to side by side for one batch: what takes the most connections to WuKongIM.
    pub fn wide_batch(&mut self) -> Asked {
        let first = self.random(GROUPS);
        let groups = (0..WIDE).map(|index| format!("bench-group{:03}", (first + index) % GROUPS));
        let user = self.random(self.tokens.len());
        self.batch(user, &groups.collect::<Vec<_>>(), WIDE)
    }

    /// To these groups in turn.
    fn batch(&mut self, user: usize, groups: &[String], count: usize) -> Asked {
        let (mut bodies, mut numbers) = (Vec::new(), Vec::new());
        for group in groups.iter().cycle().take(count) {
            let (body, number) = self.message(group, 2, PAYLOAD);
            bodies.push(body);
            numbers.push(number);
        }
        let body = format!("[{}]", bodies.join(","));
        self.asked(
            Kind::Batch,
            "POST",
            "/message/sendbatch",
            Some(user),
            &body,
            numbers,
        )
    }

    fn sync(&self, user: usize, group: &str) -> Asked {
        let path = format!("/message/sync?channelId={group}&channelType=2&limit={PAGE}");
        self.asked(Kind::Sync, "GET", &path, Some(user), "", Vec::new())
    }

    fn asked(
        &self,
        kind: Kind,
        method: &str,
        path: &str,
        user: Option<usize>,
        body: &str,
        numbers: Vec<String>,
    ) -> Asked {
        let mut text = format!("{method} /api/v1/im{path} HTTP/1.1\r\nHost: bench\r\n");
        if let Some(user) = user {
            let _ = write!(text, "Authorization: Bearer {}\r\n", self.tokens[user]);
        }
        if !body.is_empty() {
            let length = body.len();
            let _ = write!(
                text,
                "Content-Type: application/json\r\nContent-Length: {length}\r\n"
            );
        }
        text.push_str("\r\n");
        text.push_str(body);
        Asked {
            kind,
            bytes: text.into_bytes(),
            numbers,
            repeated: false,
        }
    }
}
