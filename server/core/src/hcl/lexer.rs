//! Splits HCL1 or JSON source into tokens with positions.
//!
//! Knows nothing of blocks and attributes; that is the parser's part.

use super::{HclError, Position};

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A bare word: key, `true`, `false`, `null`.
    Ident(String),
    /// Quoted text or heredoc, escapes resolved.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// One of `{ } [ ] , = :`.
    Punct(char),
    /// The end of the source.
    End,
}

pub(super) struct Lexer<'a> {
    rest: &'a str,
    at: Position,
    json: bool,
    /// How much was left where the last token began.
    left: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(source: &'a str, json: bool) -> Self {
        Self { rest: source, at: Position { line: 1, column: 1 }, json, left: source.len() }
    }

    /// Where the last token lies in the source, in bytes.
    pub(super) fn span(&self, source: &str) -> std::ops::Range<usize> {
        source.len() - self.left..source.len() - self.rest.len()
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn error<T>(&self, message: &str) -> Result<T, HclError> {
        Err(HclError::new(self.at, message))
    }

    /// The next token and where it begins.
    pub(super) fn next(&mut self) -> Result<(Token, Position), HclError> {
        self.skip_blank()?;
        self.left = self.rest.len();
        let at = self.at;
        let Some(c) = self.peek() else { return Ok((Token::End, at)) };
        let token = match c {
            '{' | '}' | '[' | ']' | ',' | '=' => {
                self.bump();
                Token::Punct(c)
            }
            ':' if self.json => {
                self.bump();
                Token::Punct(c)
            }
            '"' => Token::Text(self.quoted()?),
            '<' if !self.json && self.rest.starts_with("<<") => Token::Text(self.heredoc()?),
            '-' | '0'..='9' => self.number()?,
            c if c.is_alphabetic() || c == '_' => Token::Ident(self.ident()),
            _ => return self.error("unexpected character"),
        };
        Ok((token, at))
    }

    fn skip_blank(&mut self) -> Result<(), HclError> {
        loop {
            match self.peek() {
                Some(c) if c.is_ascii_whitespace() || c == '\u{feff}' => {
                    self.bump();
                }
                Some('#') if !self.json => self.skip_line(),
                Some('/') if !self.json && self.rest.starts_with("//") => self.skip_line(),
                Some('/') if !self.json && self.rest.starts_with("/*") => self.skip_block_comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.bump();
        }
    }

    fn skip_block_comment(&mut self) -> Result<(), HclError> {
        let start = self.at;
        self.bump();
        self.bump();
        while !self.rest.starts_with("*/") {
            if self.bump().is_none() {
                return Err(HclError::new(start, "comment is not closed"));
            }
        }
        self.bump();
        self.bump();
        Ok(())
    }

    fn ident(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')) {
            word.push(c);
            self.bump();
        }
        word
    }

    fn number(&mut self) -> Result<Token, HclError> {
        let at = self.at;
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'))
        {
            text.push(c);
            self.bump();
        }
        let wrong = || HclError::new(at, "invalid number");
        let (negative, digits) = text.strip_prefix('-').map_or((false, text.as_str()), |d| (true, d));
        if digits.is_empty() || !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(wrong());
        }
        let radix = match digits.as_bytes() {
            [b'0', b'x' | b'X', ..] if !self.json => Some((&digits[2..], 16)),
            [b'0', rest @ ..] if !self.json && !rest.is_empty() && rest.iter().all(u8::is_ascii_digit) => {
                Some((&digits[1..], 8))
            }
            _ => None,
        };
        if let Some((digits, radix)) = radix {
            if !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            let n = i64::from_str_radix(digits, radix).map_err(|_| wrong())?;
            return Ok(Token::Integer(if negative { -n } else { n }));
        }
        if digits.bytes().all(|c| c.is_ascii_digit()) {
            return text.parse().map(Token::Integer).map_err(|_| wrong());
        }
        match text.parse::<f64>() {
            Ok(n) if n.is_finite() => Ok(Token::Float(n)),
            _ => Err(wrong()),
        }
    }

    fn quoted(&mut self) -> Result<String, HclError> {
        let start = self.at;
        self.bump();
        let mut text = String::new();
        // Inside `${...}` HCL1 takes everything verbatim, quotes included, up to the matching brace.
        let mut braces = 0u32;
        loop {
            let Some(c) = self.bump() else {
                return Err(HclError::new(start, "string is not closed"));
            };
            match c {
                _ if braces > 0 => {
                    braces = match c {
                        '{' => braces + 1,
                        '}' => braces - 1,
                        '\n' => return Err(HclError::new(start, "string is not closed")),
                        _ => braces,
                    };
                    text.push(c);
                }
                '"' => return Ok(text),
                '\n' => return Err(HclError::new(start, "string is not closed on its line")),
                '$' if !self.json && self.peek() == Some('{') => {
                    self.bump();
                    text.push_str("${");
                    braces = 1;
                }
                '\\' => text.push(self.escape()?),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, HclError> {
        let Some(c) = self.bump() else { return self.error("string is not closed") };
        Ok(match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'a' if !self.json => '\u{7}',
            'v' if !self.json => '\u{b}',
            '"' | '\\' => c,
            '/' if self.json => c,
            'x' if !self.json => self.code_point(2)?,
            'U' if !self.json => self.code_point(8)?,
            'u' => {
                let high = self.hex(4)?;
                if !(0xD800..0xDC00).contains(&high) {
                    return self.scalar(high);
                }
                if self.bump() != Some('\\') || self.bump() != Some('u') {
                    return self.error("lone surrogate in escape");
                }
                let low = self.hex(4)?;
                if !(0xDC00..0xE000).contains(&low) {
                    return self.error("lone surrogate in escape");
                }
                self.scalar(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))?
            }
            _ => return self.error("unknown escape in string"),
        })
    }

    fn code_point(&mut self, digits: u32) -> Result<char, HclError> {
        let code = self.hex(digits)?;
        self.scalar(code)
    }

    fn scalar(&self, code: u32) -> Result<char, HclError> {
        char::from_u32(code).map_or_else(|| self.error("escape is not a character"), Ok)
    }

    fn hex(&mut self, digits: u32) -> Result<u32, HclError> {
        let mut code = 0u32;
        for _ in 0..digits {
            let Some(digit) = self.bump().and_then(|c| c.to_digit(16)) else {
                return self.error("escape needs more hex digits");
            };
            code = code.wrapping_mul(16).wrapping_add(digit);
        }
        Ok(code)
    }

    /// `<<EOF` up to a line `EOF`; with `<<-EOF` the smallest common indentation is taken off.
    fn heredoc(&mut self) -> Result<String, HclError> {
        let start = self.at;
        self.bump();
        self.bump();
        let indented = self.peek() == Some('-');
        if indented {
            self.bump();
        }
        let marker = self.take_line();
        let marker = marker.trim_end_matches('\r');
        if marker.is_empty() || !marker.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return Err(HclError::new(start, "heredoc needs a marker word"));
        }
        let mut lines: Vec<String> = Vec::new();
        loop {
            if self.rest.is_empty() {
                return Err(HclError::new(start, "heredoc is not closed"));
            }
            // The marker's own line end is left for the parser: it may end an attribute.
            let line = self.rest.split('\n').next().unwrap_or_default();
            if line.trim() == marker {
                let keep = line.trim_end_matches('\r').chars().count();
                for _ in 0..keep {
                    self.bump();
                }
                break;
            }
            lines.push(self.take_line());
        }
        let indent = |l: &String| l.len() - l.trim_start_matches([' ', '\t']).len();
        let cut = if indented {
            lines.iter().filter(|l| !l.trim().is_empty()).map(indent).min().unwrap_or(0)
        } else {
            0
        };
        let mut text = String::new();
        for line in &lines {
            text.push_str(line.get(cut.min(indent(line))..).unwrap_or_default());
            text.push('\n');
        }
        Ok(text)
    }

    /// The rest of the line, without its end, which is consumed.
    fn take_line(&mut self) -> String {
        let mut line = String::new();
        while let Some(c) = self.bump() {
            if c == '\n' {
                break;
            }
            line.push(c);
        }
        line
    }
}
