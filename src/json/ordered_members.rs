//! A JSON object as a list of members: in order, with duplicates, names borrowed where they contain no escapes.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// The members of an object, as names and values.
#[derive(Debug)]
pub(crate) struct OrderedMembers<'a, V>(pub Vec<(Cow<'a, str>, V)>);

/// A string, borrowed where it contains no escapes; serde always copies into a bare `Cow`.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct BorrowedStr<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for OrderedMembers<'de, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Collect<V> {
            type Value = OrderedMembers<'de, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((name, value)) = map.next_entry::<BorrowedStr<'de>, V>()? {
                    members.push((name.0, value));
                }
                Ok(OrderedMembers(members))
            }
        }
        deserializer.deserialize_map(Collect(PhantomData))
    }
}
