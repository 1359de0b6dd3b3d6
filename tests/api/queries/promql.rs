//! What a PromQL query names: enough of the language to find every metric, label and function in it. Whether the rest is well-formed
//! is for Prometheus to say.

use std::ops::Range;

/// The names in a query.
#[derive(Default)]
pub struct Query {
    pub selectors: Vec<Selector>,
    pub groups: Vec<Group>,
    pub functions: Vec<String>,
}

/// A metric with its matchers.
pub struct Selector {
    pub metric: String,
    pub matchers: Vec<Matcher>,
    /// Its place in the query.
    at: usize,
}

pub struct Matcher {
    pub label: String,
    /// As it stands between the quotes.
    pub value: String,
}

/// The labels of a `by (…)`, `on (…)` and the like.
pub struct Group {
    pub labels: Vec<String>,
    /// Whether they are what an aggregation keeps.
    pub is_kept: bool,
    scope: Range<usize>,
}

impl Query {
    /// The metrics that must have a group's labels.
    pub fn in_scope<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a Selector> {
        let selectors = self.selectors.iter();
        selectors.filter(|selector| group.scope.contains(&selector.at))
    }
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// Reads a query, or says what is strange about it.
pub fn read(text: &str) -> Result<Query, String> {
    let mut reader = Reader {
        tokens: tokens(text)?,
        query: Query::default(),
    };
    let mut at = 0;
    while let Some(token) = reader.tokens.get(at) {
        at = match token {
            Token::Word(word) => reader.word(at, &word.clone())?,
            Token::Sign('[') => reader.end(at)? + 1,
            Token::Sign('{') => return Err("a selector without a metric".into()),
            _ => at + 1,
        };
    }
    Ok(reader.query)
}

struct Reader {
    tokens: Vec<Token>,
    query: Query,
}

impl Reader {
    /// Takes what begins with this word; where it ends.
    fn word(&mut self, at: usize, word: &str) -> Result<usize, String> {
        let next = self.tokens.get(at + 1);
        let groups = |word: &str| matches!(word, "by" | "without");
        match word {
            "and" | "or" | "unless" | "bool" | "offset" => Ok(at + 1),
            "by" | "without" | "on" | "ignoring" | "group_left" | "group_right" => {
                let end = self.end(at + 1)?;
                let scope = if groups(word) {
                    end..self.end(end + 1)?
                } else {
                    0..self.tokens.len()
                };
                let words = self.tokens[at + 1..end].iter().filter_map(Token::word);
                self.query.groups.push(Group {
                    labels: words.map(str::to_owned).collect(),
                    is_kept: word == "by",
                    scope,
                });
                Ok(end + 1)
            }
            _ if next.is_some_and(|next| {
                *next == Token::Sign('(') || next.word().is_some_and(groups)
            }) =>
            {
                self.query.functions.push(word.to_owned());
                Ok(at + 1)
            }
            _ => self.selector(at, word),
        }
    }

    fn selector(&mut self, at: usize, metric: &str) -> Result<usize, String> {
        let (mut matchers, mut end) = (Vec::new(), at + 1);
        if self.tokens.get(end) == Some(&Token::Sign('{')) {
            end = self.end(end)? + 1;
            let inner = self.tokens[at + 2..end - 1].iter();
            let inner = inner.filter(|token| !matches!(token, Token::Sign(_)));
            let inner: Vec<_> = inner.collect();
            for pair in inner.chunks(2) {
                let [Token::Word(label), Token::Text(value)] = pair else {
                    return Err(format!("the matchers of {metric}"));
                };
                matchers.push(Matcher {
                    label: label.clone(),
                    value: value.clone(),
                });
            }
        }
        self.query.selectors.push(Selector {
            metric: metric.to_owned(),
            matchers,
            at,
        });
        Ok(end)
    }

    /// Where what opens at `at` closes.
    fn end(&self, at: usize) -> Result<usize, String> {
        let mut open = 0;
        for (index, token) in self.tokens.iter().enumerate().skip(at) {
            match token {
                Token::Sign('(' | '[' | '{') => open += 1,
                Token::Sign(')' | ']' | '}') => open -= 1,
                _ => {}
            }
            if open == 0 {
                let begins = index > at;
                return begins.then_some(index).ok_or("a bracket is missing".into());
            }
        }
        Err("a bracket is not closed".into())
    }
}

impl Token {
    fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '$' | '.');
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '"' | '\'' => {
                let inner = rest[1..].split(first).next().unwrap_or_default();
                let length = inner.len() + 2;
                if length > rest.len() {
                    return Err("a text is not closed".into());
                }
                (Token::Text(inner.to_owned()), length)
            }
            _ if is_word(first) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (Token::Word(rest[..length].to_owned()), length)
            }
            sign => (Token::Sign(sign), sign.len_utf8()),
        };
        // Numbers and durations name nothing.
        if !(first.is_ascii_digit()) {
            tokens.push(token);
        }
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}
