//! Reads parameters one by one from a query string, so that every problem is found and reported.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::json::MAX_NUMBER;
use super::problems::FieldProblems;
use crate::config::Limits;
use crate::domain::{Channel, ChannelId, ChannelType};
use crate::http::errors::Problem;

/// The parameters of a query string, percent-decoded; `None` where a value is not UTF-8.
#[derive(Default)]
pub struct QueryFields(Vec<(String, Option<String>)>);

impl QueryFields {
    /// Splits and decodes a raw query string, in the way HTML forms are encoded.
    pub fn parse(query: &str) -> Self {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced)
                .decode_utf8()
                .ok()
                .map(Cow::into_owned)
        };
        let pairs = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .filter_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(name)?, decode(value)))
            });
        Self(pairs.collect())
    }

    /// A parameter's text. The outer `None` means that a problem was reported; an empty parameter counts as missing.
    pub fn text(&mut self, name: &str, problems: &mut FieldProblems) -> Option<Option<String>> {
        let mut found = self.0.iter().filter(|(key, _)| key == name);
        let first = found.next();
        if found.next().is_some() {
            problems.add(name, Problem::Twice);
            return None;
        }
        match first {
            None => Some(None),
            Some((_, None)) => {
                problems.add(name, Problem::NotUtf8);
                None
            }
            Some((_, Some(text))) if text.is_empty() => Some(None),
            Some((_, Some(text))) => Some(Some(text.clone())),
        }
    }

    /// `channelId` and a `channelType` that must be 2.
    pub fn group(&mut self, limits: &Limits, problems: &mut FieldProblems) -> Option<ChannelId> {
        let id = self.channel_id(limits, problems);
        self.channel_type(false, problems)?;
        id
    }

    /// `channelId` and `channelType`, 1 or 2.
    pub fn channel(&mut self, limits: &Limits, problems: &mut FieldProblems) -> Option<Channel> {
        let id = self.channel_id(limits, problems);
        let channel_type = self.channel_type(true, problems);
        Some(Channel::new(channel_type?, id?))
    }

    fn channel_id(&mut self, limits: &Limits, problems: &mut FieldProblems) -> Option<ChannelId> {
        let parsed = match self.text("channelId", problems)? {
            None => Err(Problem::Required),
            Some(text) => ChannelId::parse(&text, limits.id_bytes).map_err(Problem::Id),
        };
        parsed
            .map_err(|problem| problems.add("channelId", problem))
            .ok()
    }

    fn channel_type(&mut self, person: bool, problems: &mut FieldProblems) -> Option<ChannelType> {
        let number = self.number("channelType", 0, MAX_NUMBER, problems)?;
        let parsed = match number.map(ChannelType::from_number) {
            None => Err(Problem::Required),
            Some(Some(channel_type)) if person || channel_type == ChannelType::Group => {
                Ok(channel_type)
            }
            Some(_) => Err(Problem::ChannelType { person }),
        };
        parsed
            .map_err(|problem| problems.add("channelType", problem))
            .ok()
    }

    /// A parameter of decimal digits between `min` and `max`. The outer `None` means that a problem was reported.
    pub fn number(
        &mut self,
        name: &str,
        min: u64,
        max: u64,
        problems: &mut FieldProblems,
    ) -> Option<Option<u64>> {
        let Some(text) = self.text(name, problems)? else {
            return Some(None);
        };
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            problems.add(name, Problem::NotNumber);
            return None;
        }
        // Only digits: a number that does not fit exceeds every maximum.
        let number = text.parse::<u64>().unwrap_or(u64::MAX);
        if !(min..=max).contains(&number) {
            problems.add(name, Problem::OutOfRange { min, max });
            return None;
        }
        Some(Some(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_strictly() {
        let mut problems = FieldProblems::default();
        let mut query = QueryFields::parse("a=%E7%BE%A4+x&b=%ff&c=1&c=2&d=&e");
        assert_eq!(query.text("a", &mut problems), Some(Some("群 x".into())));
        assert_eq!(query.text("b", &mut problems), None);
        assert_eq!(query.text("c", &mut problems), None);
        assert_eq!(query.text("d", &mut problems), Some(None));
        assert_eq!(query.text("e", &mut problems), Some(None));
        let named: Vec<_> = problems
            .into_details()
            .into_iter()
            .map(|p| (p.field, p.problem))
            .collect();
        assert_eq!(
            named,
            [
                ("b".to_owned(), Problem::NotUtf8),
                ("c".to_owned(), Problem::Twice)
            ]
        );
    }
}
