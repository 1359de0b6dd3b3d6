//! The check that a text is one JSON object without repeated keys, before anything is taken from it.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::error::Category;

use super::ErrorKind;

/// Passes one JSON object in which no object has a key twice, at most as deep as serde_json allows.
pub(super) fn check(text: &str) -> Result<(), ErrorKind> {
    match serde_json::from_str::<Checked>(text) {
        Ok(Checked { is_object: true }) => Ok(()),
        Ok(_) => Err(ErrorKind::InvalidRequest),
        Err(error) if error.classify() == Category::Data => Err(ErrorKind::InvalidRequest),
        Err(_) => Err(ErrorKind::Parse),
    }
}

/// A value that has been read and forgotten.
struct Checked {
    is_object: bool,
}

const SCALAR: Checked = Checked { is_object: false };

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Checker)
    }
}

struct Checker;

impl<'de> Visitor<'de> for Checker {
    type Value = Checked;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(SCALAR)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(SCALAR)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(SCALAR)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(SCALAR)
    }

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(SCALAR)
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(SCALAR)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Checked, A::Error> {
        while values.next_element::<Checked>()?.is_some() {}
        Ok(SCALAR)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Checked, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some((Key(key), _)) = members.next_entry::<Key<'de>, Checked>()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("key given twice"));
            }
        }
        Ok(Checked { is_object: true })
    }
}

/// Borrowed from the text where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
