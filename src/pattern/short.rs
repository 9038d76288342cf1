//! The short form of a pattern, read into the JSON form.
//!
//! ```text
//! or     = and { "|" and }
//! and    = not { "&" not }
//! not    = "!" not | "(" or ")" | named
//! named  = name [ ":" name "=" value { "," name "=" value } ]
//! value  = JSON list | anything up to one of , & | ! ( ) or a space
//! ```

use serde_json::{Map, Value, json};

/// Deeper than anyone writes, shallower than the stack.
const DEEPEST: usize = 64;

/// Reads the short form; the error says what was expected where.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let value = reader.or()?;
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.expected("`&`, `|` or the end")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn or(&mut self) -> Result<Value, String> {
        self.list('|', "or", Self::and)
    }

    fn and(&mut self) -> Result<Value, String> {
        self.list('&', "and", Self::not)
    }

    fn list(
        &mut self,
        symbol: char,
        kind: &str,
        read: impl Fn(&mut Self) -> Result<Value, String>,
    ) -> Result<Value, String> {
        let mut of = vec![read(self)?];
        while self.take(symbol) {
            of.push(read(self)?);
        }
        Ok(if of.len() == 1 { of.remove(0) } else { json!({ "kind": kind, "of": of }) })
    }

    fn not(&mut self) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("more than {DEEPEST} levels of `!` and parentheses"));
        }
        let value = if self.take('!') {
            json!({ "kind": "not", "of": self.not()? })
        } else if self.take('(') {
            let value = self.or()?;
            if !self.take(')') {
                return Err(self.expected("`)`"));
            }
            value
        } else {
            self.named()?
        };
        self.depth -= 1;
        Ok(value)
    }

    fn named(&mut self) -> Result<Value, String> {
        let mut fields = Map::from_iter([("kind".to_owned(), self.name()?.into())]);
        if self.take(':') {
            loop {
                let name = self.name()?.to_owned();
                if !self.take('=') {
                    return Err(self.expected("`=`"));
                }
                let value = self.value()?;
                if fields.insert(name.clone(), value).is_some() {
                    return Err(format!("`{name}` given twice"));
                }
                if !self.take(',') {
                    break;
                }
            }
        }
        Ok(fields.into())
    }

    fn name(&mut self) -> Result<&'a str, String> {
        let rest = self.rest();
        let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if len == 0 {
            return Err(self.expected("a name"));
        }
        self.at += len;
        Ok(&rest[..len])
    }

    fn value(&mut self) -> Result<Value, String> {
        let rest = self.rest();
        if rest.starts_with('[') {
            let mut stream = serde_json::Deserializer::from_str(rest).into_iter();
            let value = stream.next().and_then(Result::ok);
            self.at += stream.byte_offset();
            return value.ok_or_else(|| self.expected("a list as in JSON"));
        }
        let end = |c: char| ",&|!()".contains(c) || c.is_whitespace();
        let word = &rest[..rest.find(end).unwrap_or(rest.len())];
        if word.is_empty() {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(serde_json::from_str(word).unwrap_or_else(|_| word.into()))
    }

    /// What is left, from the next character that is no space.
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        self.at = self.text.len() - rest.trim_start().len();
        &self.text[self.at..]
    }

    fn peek(&mut self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, symbol: char) -> bool {
        let found = self.peek() == Some(symbol);
        self.at += if found { symbol.len_utf8() } else { 0 };
        found
    }

    fn expected(&mut self, what: &str) -> String {
        match self.rest() {
            "" => format!("expected {what} at the end"),
            rest => format!("expected {what} at `{rest}`"),
        }
    }
}
