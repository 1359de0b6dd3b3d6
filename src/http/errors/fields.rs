//! The errors of a request's fields, in both languages.

use crate::domain::{IdProblem, PayloadProblem};

use super::Lang;

/// One bad field and its error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field as a path: `channelId`, `subscribers[0]`, `[3].payload`; `body` for the whole.
    pub field: String,
    /// The error.
    pub problem: Problem,
}

impl FieldProblem {
    /// This error of this field.
    pub fn new(field: impl Into<String>, problem: Problem) -> Self {
        let field = field.into();
        Self { field, problem }
    }
}

/// The error of a field. Never repeats the client's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Missing, or `null`.
    Required,
    /// Not JSON.
    NotJson,
    /// Another JSON type than a string.
    NotText,
    /// Not a whole number.
    NotNumber,
    /// Neither `true` nor `false`.
    NotBoolean,
    /// No cursor of an earlier page of this list.
    NotCursor,
    /// Not a JSON array.
    NotArray,
    /// Not a JSON object.
    NotObject,
    /// Given more than once.
    Twice,
    /// Text that is not UTF-8: a query value, or the whole body.
    NotUtf8,
    /// Text with an unpaired surrogate escape.
    NotUnicode,
    /// Empty.
    Empty,
    /// A number below the least allowed one, where no greatest one is told.
    TooSmall {
        /// The least allowed.
        min: u64,
    },
    /// A number below or above what is allowed.
    OutOfRange {
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// A channel type that this endpoint does not know; says which it knows.
    ChannelType {
        /// Whether 1 is allowed beside 2.
        person: bool,
    },
    /// No device flag.
    DeviceFlag,
    /// Too many entries.
    TooMany {
        /// The most allowed.
        max: usize,
    },
    /// Too many characters.
    TooLong {
        /// The most allowed.
        max_chars: usize,
    },
    /// Not an http or https URL.
    NotUrl,
    /// Not usable together with this other field.
    NotWith(&'static str),
    /// A group id that only admins may choose in this deployment; without it the gateway generates one.
    IdNotAllowed,
    /// The sender itself, where WuKongIM supports no such conversation.
    Oneself,
    /// No id.
    Id(IdProblem),
    /// No payload.
    Payload(PayloadProblem),
}

impl Problem {
    /// One sentence for the client.
    pub fn message(self, lang: Lang) -> String {
        match lang {
            Lang::Zh => self.zh(),
            Lang::En => self.en(),
        }
    }

    fn zh(self) -> String {
        match self {
            Self::Required => "必填".into(),
            Self::NotJson => "不是合法的JSON".into(),
            Self::NotText => "必须是字符串".into(),
            Self::NotNumber => "必须是整数".into(),
            Self::NotBoolean => "必须是true或false".into(),
            Self::NotCursor => "不是本列表上一页返回的游标".into(),
            Self::NotArray => "必须是数组".into(),
            Self::NotObject => "必须是对象".into(),
            Self::Twice => "重复出现".into(),
            Self::NotUtf8 => "必须是UTF-8文本".into(),
            Self::NotUnicode => "必须是有效的Unicode文本".into(),
            Self::Empty | Self::Id(IdProblem::Empty) | Self::Payload(PayloadProblem::Empty) => {
                "不能为空".into()
            }
            Self::TooSmall { min } => format!("不能小于{min}"),
            Self::OutOfRange { min, max } => format!("必须在{min}到{max}之间"),
            Self::ChannelType { person: true } => "必须是1（单聊）或2（群聊）".into(),
            Self::ChannelType { person: false } => "必须是2（群聊）".into(),
            Self::DeviceFlag => "必须是0（app）、1（web）或2（pc）".into(),
            Self::TooMany { max } => format!("最多{max}个"),
            Self::TooLong { max_chars } => format!("最多{max_chars}个字符"),
            Self::NotUrl => "必须是http或https地址".into(),
            Self::NotWith(other) => format!("不能与{other}同时使用"),
            Self::IdNotAllowed => "不能自定义，请省略，由网关生成".into(),
            Self::Oneself => "不能是发送者自己（WuKongIM v3不支持）".into(),
            Self::Id(IdProblem::TooLong { max_bytes }) => format!("最多{max_bytes}字节"),
            Self::Id(IdProblem::Character) => "含有不允许的字符".into(),
            Self::Id(IdProblem::Reserved) => "是保留名称".into(),
            Self::Payload(PayloadProblem::NotBase64) => "必须是带填充的标准Base64".into(),
            Self::Payload(PayloadProblem::TooLarge { max_bytes }) => {
                format!("解码后最多{max_bytes}字节")
            }
        }
    }

    fn en(self) -> String {
        match self {
            Self::Required => "is required".into(),
            Self::NotJson => "is not valid JSON".into(),
            Self::NotText => "must be a string".into(),
            Self::NotNumber => "must be a whole number".into(),
            Self::NotBoolean => "must be true or false".into(),
            Self::NotCursor => "must be the cursor of an earlier page of this list".into(),
            Self::NotArray => "must be an array".into(),
            Self::NotObject => "must be an object".into(),
            Self::Twice => "is given more than once".into(),
            Self::NotUtf8 => "must be UTF-8 text".into(),
            Self::NotUnicode => "must be valid Unicode text".into(),
            Self::Empty => "must not be empty".into(),
            Self::TooSmall { min } => format!("must be at least {min}"),
            Self::OutOfRange { min, max } => format!("must be between {min} and {max}"),
            Self::ChannelType { person: true } => "must be 1 (person) or 2 (group)".into(),
            Self::ChannelType { person: false } => "must be 2 (group)".into(),
            Self::DeviceFlag => "must be 0 (app), 1 (web) or 2 (pc)".into(),
            Self::TooMany { max } => format!("must have at most {max} entries"),
            Self::TooLong { max_chars } => format!("must be at most {max_chars} characters"),
            Self::NotUrl => "must be an http or https URL".into(),
            Self::NotWith(other) => format!("cannot be used together with {other}"),
            Self::IdNotAllowed => "must be left out: the gateway makes the ids of groups".into(),
            Self::Oneself => {
                "must not be the sender (WuKongIM v3 keeps no such conversation)".into()
            }
            Self::Id(problem) => problem.to_string(),
            Self::Payload(problem) => problem.to_string(),
        }
    }
}
