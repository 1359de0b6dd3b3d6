//! Reads fields one by one from a JSON object or a query string, so that every problem is found and reported.
//!
//! Not serde's derive: it stops at the first bad field, accepts `1.0` as an integer, and cannot name the array entry that was wrong.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::Hash;

use serde_json::value::RawValue;

use super::json::{json_problem, members};
use super::value::Value;
use crate::config::Limits;
use crate::http::errors::{Failure, FieldProblem, Problem};

/// Declares a request from one list of its fields: the type, its parser ([`FromFields`]) and its description in the OpenAPI document.
///
/// `schema` or `param` after the name is utoipa's attribute of the derived trait, `ToSchema` or `IntoParams`. A field is its name in the
/// API, the Rust name, and the type, which says how it is read ([`Field`]). All fields are read before the request is refused, so that the
/// client learns of all bad ones, in this order. A rule on several fields is a `check` after the last of them. There the fields read so
/// far are `Option`s, `None` where a problem was reported. Items of [`FromFields`] are overridden in `impl`.
///
/// ```ignore
/// request! {
///     /// A group to create.
///     #[derive(Debug, ToSchema)]
///     struct CreateGroupRequest: schema {
///         "channelId" => channel_id: Option<ChannelId>,
///         /// Needed where the group has no id yet.
///         "name" => name: Option<GroupName>, check |fields| {
///             if let (Some(None), Some(None)) = (&channel_id, &name) {
///                 fields.report("name", Problem::Required);
///             }
///         },
///         #[schema(min_items = 1, max_items = 5000)]
///         "subscribers" => subscribers: Vec<Uid>,
///     }
///     impl {
///         fn cost(&self, _: &Limits) -> usize {
///             self.subscribers.len()
///         }
///     }
/// }
/// ```
macro_rules! request {
    (
        $(#[$about:meta])*
        $vis:vis struct $Request:ident: $attribute:ident {
            $(
                $(#[$about_field:meta])*
                $name:literal => $field:ident: $Type:ty $(, check |$fields:ident| $check:block)?
            ),* $(,)?
        }
        $(impl { $($item:item)* })?
    ) => {
        $(#[$about])*
        $vis struct $Request {
            $($(#[$about_field])* #[$attribute(rename = $name)] $field: $Type,)*
        }

        impl $crate::http::extract::FromFields for $Request {
            fn from_fields(fields: &mut $crate::http::extract::Fields<'_>) -> Option<Self> {
                $(
                    let $field = <$Type as $crate::http::extract::Field>::read(fields, $name);
                    $({ let $fields = &mut *fields; $check })?
                )*
                Some(Self { $($field: $field?),* })
            }

            $($($item)*)?
        }
    };
}
pub(crate) use request;

/// A JSON object or a query string whose fields are declared by [`request!`].
pub trait FromFields: Sized {
    /// Whether a body may be left out. `null`, which some clients send for none, then counts as none.
    const IS_OPTIONAL: bool = false;

    /// Reads all fields; `None` when a problem was reported.
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self>;

    /// Its cost to the caller on a route with [`Cost::ByContent`](crate::limits::Cost::ByContent).
    fn cost(&self, _: &Limits) -> usize {
        1
    }

    /// The failure for bad fields of a query.
    fn failure(problems: Vec<FieldProblem>) -> Failure {
        Failure::invalid(problems)
    }
}

/// The fields of one JSON object or query string.
pub struct Fields<'a> {
    /// The object's index in an array; its fields are then named `[index].field`.
    index: Option<usize>,
    values: Vec<(Cow<'a, str>, Value<'a>)>,
    /// The limits in force.
    pub limits: &'a Limits,
    problems: Vec<FieldProblem>,
}

impl<'a> Fields<'a> {
    /// These fields of a body or a query.
    pub(super) fn new(values: Vec<(Cow<'a, str>, Value<'a>)>, limits: &'a Limits) -> Self {
        Self {
            index: None,
            values,
            limits,
            problems: Vec::new(),
        }
    }

    /// Reads a request from these fields.
    pub(super) fn read<T: FromFields>(mut self) -> Result<T, Vec<FieldProblem>> {
        match T::from_fields(&mut self) {
            Some(request) if self.problems.is_empty() => Ok(request),
            _ => Err(self.problems),
        }
    }

    /// Reports a bad field.
    pub fn report(&mut self, name: &str, problem: Problem) {
        let field = match self.index {
            Some(index) => format!("[{index}].{name}"),
            None => name.to_owned(),
        };
        self.problems.push(FieldProblem::new(field, problem));
    }

    /// The field's value; `None` where it is missing, `null` or an empty parameter.
    fn value(&self, name: &str) -> Result<Option<&Value<'a>>, Problem> {
        let mut found = self.values.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value);
        if found.next().is_some() {
            return Err(Problem::Twice);
        }
        Ok(value.filter(|value| !value.is_absent()))
    }
}

/// The type of a field of a [`request!`].
pub trait Field: Sized {
    /// Reads the field with this name; `None` when a problem was reported.
    fn read(fields: &mut Fields<'_>, name: &str) -> Option<Self>;
}

/// A value that is parsed by itself: text or a number.
pub trait FieldValue: Sized {
    /// Parses the value.
    fn parse(value: &Value<'_>, limits: &Limits) -> Result<Self, Problem>;
}

/// Optional.
impl<T: FieldValue> Field for Option<T> {
    fn read(fields: &mut Fields<'_>, name: &str) -> Option<Self> {
        let parse = |value| T::parse(value, fields.limits);
        let value = fields.value(name);
        match value.and_then(|value| value.map(parse).transpose()) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                fields.report(name, problem);
                None
            }
        }
    }
}

/// Required.
impl<T: FieldValue> Field for T {
    fn read(fields: &mut Fields<'_>, name: &str) -> Option<Self> {
        let value = Option::<T>::read(fields, name)?;
        if value.is_none() {
            fields.report(name, Problem::Required);
        }
        value
    }
}

/// At least one entry, at most `limits.subscribers`; duplicates are counted and dropped.
impl<T: FieldValue + Clone + Eq + Hash> Field for Vec<T> {
    fn read(fields: &mut Fields<'_>, name: &str) -> Option<Self> {
        let max = fields.limits.subscribers;
        let value = fields.value(name);
        let entries = value.and_then(|value| match value.ok_or(Problem::Required)?.entries()? {
            entries if entries.is_empty() => Err(Problem::Empty),
            entries if entries.len() > max => Err(Problem::TooMany { max }),
            entries => Ok(entries),
        });
        let entries = entries
            .map_err(|problem| fields.report(name, problem))
            .ok()?;
        let mut distinct = Vec::with_capacity(entries.len());
        let mut seen = HashSet::with_capacity(entries.len());
        let problems = fields.problems.len();
        for (index, raw) in entries.into_iter().enumerate() {
            match T::parse(&Value::Json(raw.get()), fields.limits) {
                Ok(entry) if seen.insert(entry.clone()) => distinct.push(entry),
                Ok(_) => {}
                Err(problem) => fields.report(&format!("{name}[{index}]"), problem),
            }
        }
        (fields.problems.len() == problems).then_some(distinct)
    }
}

/// A request body that can be parsed from JSON, reporting every problem.
pub trait FromJson: Sized {
    /// Reads the body; `None` where the client sent none.
    fn from_json(body: Option<&[u8]>, limits: &Limits) -> Result<Self, Vec<FieldProblem>>;

    /// Its cost to the caller on a route with [`Cost::ByContent`](crate::limits::Cost::ByContent).
    fn cost(&self, limits: &Limits) -> usize;
}

/// An object; no body counts as an empty one.
impl<T: FromFields> FromJson for T {
    fn from_json(body: Option<&[u8]>, limits: &Limits) -> Result<Self, Vec<FieldProblem>> {
        let is_null = |body: &[u8]| serde_json::from_slice::<()>(body).is_ok();
        let body = body.filter(|body| !(T::IS_OPTIONAL && is_null(body)));
        let values = body.map_or(Ok(Vec::new()), members);
        Fields::new(values.map_err(whole_body)?, limits).read()
    }

    fn cost(&self, limits: &Limits) -> usize {
        FromFields::cost(self, limits)
    }
}

/// Reads an array of objects, at least one and at most `max`.
pub fn list<T: FromFields>(
    body: Option<&[u8]>,
    max: usize,
    limits: &Limits,
) -> Result<Vec<T>, Vec<FieldProblem>> {
    let body = body.ok_or_else(|| whole_body(Problem::Required))?;
    let entries = serde_json::from_slice::<Vec<&RawValue>>(body)
        .map_err(|error| whole_body(json_problem(body, &error, Problem::NotArray)))?;
    if entries.is_empty() {
        return Err(whole_body(Problem::Empty));
    }
    if entries.len() > max {
        return Err(whole_body(Problem::TooMany { max }));
    }
    let mut requests = Vec::with_capacity(entries.len());
    let mut problems = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        // Every entry is parsed, so that all bad ones are reported.
        let request = match members(entry.get().as_bytes()) {
            Ok(values) => Fields {
                index: Some(index),
                ..Fields::new(values, limits)
            }
            .read(),
            Err(problem) => Err(vec![FieldProblem::new(format!("[{index}]"), problem)]),
        };
        match request {
            Ok(request) => requests.push(request),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        Ok(requests)
    } else {
        Err(problems)
    }
}

/// The report of a bad body.
pub(super) fn whole_body(problem: Problem) -> Vec<FieldProblem> {
    vec![FieldProblem::new("body", problem)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ChannelId, ChannelType};

    #[test]
    fn escaped_names_and_duplicates_are_seen() {
        let limits = crate::config::Settings::for_tests().limits;
        let body =
            br#"{"channel\u0049d":"g","channelType":2,"channelType":2,"other":[1,2],"other":3}"#;
        let mut fields = Fields::new(members(body).unwrap(), &limits);
        assert!(ChannelId::read(&mut fields, "channelId").is_some());
        assert_eq!(ChannelType::read(&mut fields, "channelType"), None);
        let twice = FieldProblem::new("channelType", Problem::Twice);
        assert_eq!(fields.problems, [twice]);
    }
}
