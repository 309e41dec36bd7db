//! Builds the generic document out of tokens. One grammar serves HCL1 and JSON; `json` narrows it.
//!
//! Depth is bounded before recursing, so no input can exhaust the stack.

use std::collections::HashMap;

use super::lexer::{Lexer, Token};
use super::{Body, Entry, HclError, MAX_HCL_DEPTH, Position, Value};

pub(super) fn parse(source: &str) -> Result<Body, HclError> {
    let json = source.trim_start_matches('\u{feff}').trim_start().starts_with('{');
    let mut lexer = Lexer::new(source, json);
    let (token, at) = lexer.next()?;
    let mut parser = Parser { lexer, token, at, json, depth: 0 };
    let body = if json {
        parser.expect('{')?;
        parser.body(Some('}'))?
    } else {
        parser.body(None)?
    };
    if parser.token == Token::End { Ok(body) } else { parser.error("nothing may follow the document") }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token,
    at: Position,
    json: bool,
    depth: usize,
}

impl Parser<'_> {
    fn error<T>(&self, message: impl Into<String>) -> Result<T, HclError> {
        Err(HclError::new(self.at, message))
    }

    fn advance(&mut self) -> Result<Token, HclError> {
        let (token, at) = self.lexer.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, token))
    }

    fn is(&self, c: char) -> bool {
        self.token == Token::Punct(c)
    }

    fn expect(&mut self, c: char) -> Result<(), HclError> {
        if self.is(c) { self.advance().map(drop) } else { self.error(format!("expected '{c}'")) }
    }

    fn descend(&mut self) -> Result<(), HclError> {
        self.depth += 1;
        if self.depth > MAX_HCL_DEPTH {
            return self.error(format!("nested deeper than {MAX_HCL_DEPTH}"));
        }
        Ok(())
    }

    /// Entries up to `close` (consumed) or the end.
    fn body(&mut self, close: Option<char>) -> Result<Body, HclError> {
        self.descend()?;
        let mut body = Body::default();
        let mut seen = HashMap::new();
        loop {
            match (&self.token, close) {
                (Token::End, None) => break,
                (Token::End, Some(c)) => return self.error(format!("expected '{c}'")),
                (Token::Punct(found), Some(c)) if *found == c => {
                    self.advance()?;
                    break;
                }
                _ => {}
            }
            let entry = self.entry()?;
            let is_block = blockish(&entry);
            let was_block = seen.insert(entry.key.clone(), is_block);
            if was_block.is_some_and(|was| !(was && is_block)) {
                return Err(HclError::new(entry.at, format!("{:?} is given twice", entry.key)));
            }
            body.entries.push(entry);
            let closing = close.is_some_and(|c| self.is(c));
            if self.is(',') {
                self.advance()?;
                if self.json && close.is_some_and(|c| self.is(c)) {
                    return self.error("expected a key after ','");
                }
            } else if self.json && !closing {
                return self.error("expected ',' or '}'");
            }
        }
        self.depth -= 1;
        Ok(body)
    }

    fn entry(&mut self) -> Result<Entry, HclError> {
        let at = self.at;
        let key = match &self.token {
            Token::Text(text) => text.clone(),
            Token::Ident(word) if !self.json => word.clone(),
            _ => return self.error("expected a key"),
        };
        self.advance()?;
        if self.json {
            self.expect(':')?;
            return Ok(Entry { key, labels: Vec::new(), value: self.value()?, at });
        }
        let mut labels = Vec::new();
        loop {
            match &self.token {
                Token::Punct('=') if labels.is_empty() => {
                    self.advance()?;
                    return Ok(Entry { key, labels, value: self.value()?, at });
                }
                Token::Punct('{') => {
                    self.advance()?;
                    let value = Value::Object(self.body(Some('}'))?);
                    return Ok(Entry { key, labels, value, at });
                }
                Token::Text(label) | Token::Ident(label) if labels.len() < 8 => {
                    labels.push(label.clone());
                    self.advance()?;
                }
                _ => return self.error(format!("expected '=' or '{{' after {key:?}")),
            }
        }
    }

    fn value(&mut self) -> Result<Value, HclError> {
        let at = self.at;
        match self.advance()? {
            Token::Text(text) => Ok(Value::String(text)),
            Token::Integer(n) => Ok(Value::Integer(n)),
            Token::Float(n) => Ok(Value::Float(n)),
            Token::Ident(word) => match word.as_str() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                "null" if self.json => Ok(Value::Null),
                _ => Err(HclError::new(at, "expected a value (text needs quotes)")),
            },
            Token::Punct('{') => Ok(Value::Object(self.body(Some('}'))?)),
            Token::Punct('[') => self.list(),
            _ => Err(HclError::new(at, "expected a value")),
        }
    }

    fn list(&mut self) -> Result<Value, HclError> {
        self.descend()?;
        let mut items = Vec::new();
        while !self.is(']') {
            items.push(self.value()?);
            if self.is(',') {
                self.advance()?;
                if self.json && self.is(']') {
                    return self.error("expected a value after ','");
                }
            } else if !self.is(']') {
                return self.error("expected ',' or ']'");
            }
        }
        self.advance()?;
        self.depth -= 1;
        Ok(Value::List(items))
    }
}

/// Whether an entry may stand beside another with the same key, as blocks do.
fn blockish(entry: &Entry) -> bool {
    match &entry.value {
        Value::Object(_) => true,
        Value::List(items) => !items.is_empty() && items.iter().all(|i| matches!(i, Value::Object(_))),
        _ => false,
    }
}
