//! Reads fields one by one from a JSON object, so that every problem is found and reported.
//!
//! Not serde's derive: it stops at the first bad field, accepts `1.0` as an integer, and cannot name the array entry that was wrong.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::json::{Members, problem, text, whole_number};
use super::problems::FieldProblems;
use crate::config::Limits;
use crate::domain::{Channel, ChannelId, ChannelType, ClientMsgNo, Payload, Uid};
use crate::http::errors::Problem;

/// The fields of one JSON object, taken one by one.
pub struct BodyFields<'a, 'p> {
    prefix: String,
    members: Members<'a>,
    limits: &'p Limits,
    problems: &'p mut FieldProblems,
}

impl<'a, 'p> BodyFields<'a, 'p> {
    /// Parses `body` as an object; a missing body counts as an empty object.
    pub fn of_body(
        body: Option<&'a [u8]>,
        limits: &'p Limits,
        problems: &'p mut FieldProblems,
    ) -> Option<Self> {
        let members = match body {
            None => Members(Vec::new()),
            Some(body) => match Members::of(body) {
                Ok(members) => members,
                Err(error) => {
                    problems.add("body", problem(body, &error, Problem::NotObject));
                    return None;
                }
            },
        };
        Some(Self {
            prefix: String::new(),
            members,
            limits,
            problems,
        })
    }

    /// [`BodyFields::of_body`] where a body may be left out: `null` is what some clients send for none.
    pub fn of_optional_body(
        body: Option<&'a [u8]>,
        limits: &'p Limits,
        problems: &'p mut FieldProblems,
    ) -> Option<Self> {
        let body = body.filter(|body| serde_json::from_slice::<()>(body).is_err());
        Self::of_body(body, limits, problems)
    }

    /// Parses one entry of an array as an object; its fields are named `[index].field`.
    pub fn of_entry(
        index: usize,
        raw: &'a str,
        limits: &'p Limits,
        problems: &'p mut FieldProblems,
    ) -> Option<Self> {
        match Members::of(raw.as_bytes()) {
            Ok(members) => Some(Self {
                prefix: format!("[{index}]."),
                members,
                limits,
                problems,
            }),
            Err(error) => {
                let problem = problem(raw.as_bytes(), &error, Problem::NotObject);
                problems.add(format!("[{index}]"), problem);
                None
            }
        }
    }

    fn report(&mut self, name: &str, problem: Problem) {
        let field = format!("{}{name}", self.prefix);
        self.problems.add(field, problem);
    }

    /// The field's raw value; absent where it is missing or `null`. A duplicate is reported.
    fn take(&mut self, name: &str) -> FieldValue<'a> {
        let mut found = self.members.0.iter().filter(|(key, _)| key == name);
        let first = found.next().map(|(_, value)| *value);
        if found.next().is_some() {
            self.report(name, Problem::Twice);
            return FieldValue::Reported;
        }
        match first {
            None | Some("null") => FieldValue::Absent,
            Some(value) => FieldValue::Value(value),
        }
    }

    /// An optional text. The outer `None` means that a problem was reported.
    pub fn optional_text(&mut self, name: &str) -> Option<Option<Cow<'a, str>>> {
        match self.take(name) {
            FieldValue::Reported => None,
            FieldValue::Absent => Some(None),
            FieldValue::Value(raw) => match text(raw) {
                Ok(text) => Some(Some(text)),
                Err(problem) => {
                    self.report(name, problem);
                    None
                }
            },
        }
    }

    fn text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let text = self.optional_text(name)?;
        if text.is_none() {
            self.report(name, Problem::Required);
        }
        text
    }

    /// An optional whole number. The outer `None` means that a problem was reported.
    pub fn optional_number(&mut self, name: &str) -> Option<Option<u64>> {
        match self.take(name) {
            FieldValue::Reported => None,
            FieldValue::Absent => Some(None),
            FieldValue::Value(raw) => match whole_number(raw) {
                Ok(number) => Some(Some(number)),
                Err(problem) => {
                    self.report(name, problem);
                    None
                }
            },
        }
    }

    /// `channelId` and `channelType`, 1 or 2.
    pub fn channel(&mut self) -> Option<Channel> {
        let id = self.channel_id();
        let channel_type = self.channel_type(true);
        Some(Channel::new(channel_type?, id?))
    }

    /// `channelType`, 1 or 2, and a `channelId` that may be left out for a group, unless the one that the gateway makes would be too long
    /// here.
    pub fn channel_to_create(&mut self) -> Option<(ChannelType, Option<ChannelId>)> {
        let id = self.optional_channel_id();
        let channel_type = self.channel_type(true);
        let (id, channel_type) = (id?, channel_type?);
        let is_made =
            channel_type == ChannelType::Group && self.limits.id_bytes >= ChannelId::RANDOM_BYTES;
        if id.is_none() && !is_made {
            self.report("channelId", Problem::Required);
            return None;
        }
        Some((channel_type, id))
    }

    /// `channelId` and a `channelType` that must be 2.
    pub fn group(&mut self) -> Option<ChannelId> {
        let id = self.channel_id();
        self.channel_type(false)?;
        id
    }

    fn channel_id(&mut self) -> Option<ChannelId> {
        let id = self.optional_channel_id()?;
        if id.is_none() {
            self.report("channelId", Problem::Required);
        }
        id
    }

    /// An optional `channelId`. The outer `None` means that a problem was reported.
    pub fn optional_channel_id(&mut self) -> Option<Option<ChannelId>> {
        let Some(text) = self.optional_text("channelId")? else {
            return Some(None);
        };
        match ChannelId::parse(&text, self.limits.id_bytes) {
            Ok(id) => Some(Some(id)),
            Err(problem) => {
                self.report("channelId", Problem::Id(problem));
                None
            }
        }
    }

    fn channel_type(&mut self, person: bool) -> Option<ChannelType> {
        let Some(number) = self.optional_number("channelType")? else {
            self.report("channelType", Problem::Required);
            return None;
        };
        match ChannelType::from_number(number) {
            Some(ChannelType::Person) if !person => {}
            Some(channel_type) => return Some(channel_type),
            None => {}
        }
        self.report("channelType", Problem::ChannelType { person });
        None
    }

    /// The `payload`.
    pub fn payload(&mut self) -> Option<Payload> {
        let text = self.text("payload")?;
        match Payload::parse(&text, self.limits.payload) {
            Ok(payload) => Some(payload),
            Err(problem) => {
                self.report("payload", Problem::Payload(problem));
                None
            }
        }
    }

    /// The optional `clientMsgNo`.
    pub fn client_msg_no(&mut self) -> Option<Option<ClientMsgNo>> {
        let Some(text) = self.optional_text("clientMsgNo")? else {
            return Some(None);
        };
        match ClientMsgNo::parse(&text, self.limits.client_msg_no_bytes) {
            Ok(number) => Some(Some(number)),
            Err(problem) => {
                self.report("clientMsgNo", Problem::Id(problem));
                None
            }
        }
    }

    /// An optional uid.
    pub fn optional_uid(&mut self, name: &str) -> Option<Option<Uid>> {
        let Some(text) = self.optional_text(name)? else {
            return Some(None);
        };
        match Uid::parse(&text, self.limits.id_bytes) {
            Ok(uid) => Some(Some(uid)),
            Err(problem) => {
                self.report(name, Problem::Id(problem));
                None
            }
        }
    }

    /// A uid.
    pub fn uid(&mut self, name: &str) -> Option<Uid> {
        let uid = self.optional_uid(name)?;
        if uid.is_none() {
            self.report(name, Problem::Required);
        }
        uid
    }

    /// A list of at least one uid, duplicates dropped; the limit counts what was sent.
    pub fn uids(&mut self, name: &str) -> Option<Vec<Uid>> {
        let raw = match self.take(name) {
            FieldValue::Reported => return None,
            FieldValue::Absent => {
                self.report(name, Problem::Required);
                return None;
            }
            FieldValue::Value(raw) => raw,
        };
        let Ok(entries) = serde_json::from_str::<Vec<&'a RawValue>>(raw) else {
            self.report(name, Problem::NotArray);
            return None;
        };
        if entries.is_empty() {
            self.report(name, Problem::Empty);
            return None;
        }
        let max = self.limits.subscribers;
        let mut uids = Vec::with_capacity(entries.len().min(max));
        let mut seen = std::collections::HashSet::with_capacity(entries.len().min(max));
        let mut fine = true;
        if entries.len() > max {
            self.report(name, Problem::TooMany { max });
            return None;
        }
        for (index, raw) in entries.into_iter().enumerate() {
            let problem = match text(raw.get()) {
                Err(problem) => problem,
                Ok(text) => match Uid::parse(&text, self.limits.id_bytes) {
                    Err(problem) => Problem::Id(problem),
                    Ok(uid) => {
                        if seen.insert(uid.clone()) {
                            uids.push(uid);
                        }
                        continue;
                    }
                },
            };
            fine = false;
            self.report(&format!("{name}[{index}]"), problem);
        }
        fine.then_some(uids)
    }

    /// An optional text of at most `max_chars` characters and without control characters.
    pub fn optional_short_text(&mut self, name: &str, max_chars: usize) -> Option<Option<String>> {
        let Some(text) = self.optional_text(name)? else {
            return Some(None);
        };
        if text.chars().count() > max_chars {
            self.report(name, Problem::TooLong { max_chars });
            return None;
        }
        if text.chars().any(char::is_control) {
            self.report(name, Problem::Id(crate::domain::IdProblem::Character));
            return None;
        }
        Some(Some(text.into_owned()))
    }

    /// An optional http(s) URL of at most `max_chars` characters.
    pub fn optional_http_url(&mut self, name: &str, max_chars: usize) -> Option<Option<String>> {
        let Some(text) = self.optional_short_text(name, max_chars)? else {
            return Some(None);
        };
        // The parser mends what browsers do: `http:host`, white space in front.
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        let is_http = ["http", "https"].map(|http| http.eq_ignore_ascii_case(scheme));
        match url::Url::parse(&text) {
            Ok(url) if url.has_host() && is_http.contains(&true) => Some(Some(text)),
            _ => {
                self.report(name, Problem::NotUrl);
                None
            }
        }
    }

    /// The optional `deviceFlag`: 0, 1 or 2.
    pub fn device_flag(&mut self) -> Option<Option<u8>> {
        match self.optional_number("deviceFlag")? {
            None => Some(None),
            Some(flag @ 0..=2) => Some(u8::try_from(flag).ok()),
            Some(_) => {
                self.report("deviceFlag", Problem::DeviceFlag);
                None
            }
        }
    }
}

enum FieldValue<'a> {
    Absent,
    Reported,
    Value(&'a str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_and_duplicates_are_seen() {
        let limits = crate::config::Settings::for_tests().limits;
        let mut problems = FieldProblems::default();
        let body =
            br#"{"channel\u0049d":"g","channelType":2,"channelType":2,"other":[1,2],"other":3}"#;
        let mut fields = BodyFields::of_body(Some(body), &limits, &mut problems).unwrap();
        assert_eq!(fields.channel(), None);
        let details = problems.into_details();
        assert_eq!(details.len(), 1);
        assert_eq!(
            (details[0].field.as_str(), details[0].problem),
            ("channelType", Problem::Twice)
        );
    }
}
