//! HCL1 in its one canonical layout, as `hclfmt` has it. Comments stay.
//!
//! Changes blanks, line ends and commas only: what a document says is the same before and after.

use super::lexer::{Lexer, Token};
use super::{HclError, MAX_HCL_DEPTH, Position, parse};

/// The canonical layout of a document. JSON is refused: it has none of this.
pub fn format(source: &str) -> Result<String, HclError> {
    parse(source)?;
    if is_json(source) {
        return Err(HclError::new(Position { line: 1, column: 1 }, "this is JSON, which is not reformatted"));
    }
    let mut reader = Reader { pieces: pieces(source)?, next: 0, depth: 0 };
    let body = reader.body()?;
    let mut out = String::new();
    print_body(&body, 0, true, &mut out);
    Ok(out)
}

pub(super) fn is_json(source: &str) -> bool {
    source.trim_start_matches('\u{feff}').trim_start().starts_with('{')
}

/// A token as it stands in the source, or a comment.
struct Piece<'a> {
    kind: Kind,
    text: &'a str,
    first_line: u32,
    last_line: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Punct(char),
    Comment,
    End,
}

fn pieces(source: &str) -> Result<Vec<Piece<'_>>, HclError> {
    let mut lexer = Lexer::new(source, false);
    let mut pieces = Vec::new();
    let mut from = 0;
    let mut line = 1;
    loop {
        let (token, at) = lexer.next()?;
        let span = lexer.span(source);
        comments(source.get(from..span.start).unwrap_or_default(), line, &mut pieces);
        let kind = match token {
            Token::End => Kind::End,
            Token::Punct(c) => Kind::Punct(c),
            _ => Kind::Word,
        };
        let text = source.get(span.clone()).unwrap_or_default();
        line = at.line + lines_in(text);
        pieces.push(Piece { kind, text, first_line: at.line, last_line: line });
        if kind == Kind::End {
            return Ok(pieces);
        }
        from = span.end;
    }
}

fn lines_in(text: &str) -> u32 {
    u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX)
}

/// The comments between two tokens.
fn comments<'a>(mut gap: &'a str, mut line: u32, pieces: &mut Vec<Piece<'a>>) {
    while let Some(at) = gap.find(['#', '/']) {
        let (before, rest) = gap.split_at(at);
        line += lines_in(before);
        let end = if rest.starts_with("/*") { rest.find("*/").map(|at| at + 2) } else { rest.find('\n') };
        let (text, after) = rest.split_at(end.unwrap_or(rest.len()));
        let last_line = line + lines_in(text);
        pieces.push(Piece { kind: Kind::Comment, text: text.trim_end(), first_line: line, last_line });
        line = last_line;
        gap = after;
    }
}

/// A comment above something, and whether a line is free below it.
struct Above<'a> {
    text: &'a str,
    free_below: bool,
}

struct Item<'a> {
    above: Vec<Above<'a>>,
    head: String,
    assigned: bool,
    value: Node<'a>,
    beside: Option<&'a str>,
    first_line: u32,
    last_line: u32,
}

#[derive(Default)]
struct Body<'a> {
    items: Vec<Item<'a>>,
    below: Vec<Above<'a>>,
}

struct Element<'a> {
    above: Vec<Above<'a>>,
    value: Node<'a>,
    beside: Option<&'a str>,
}

enum Node<'a> {
    Word(&'a str),
    List { elements: Vec<Element<'a>>, below: Vec<Above<'a>>, in_line: bool },
    Object(Body<'a>),
}

struct Reader<'a> {
    pieces: Vec<Piece<'a>>,
    next: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> &Piece<'a> {
        // The last one is the end, which is never taken.
        &self.pieces[self.next.min(self.pieces.len() - 1)]
    }

    fn last_line(&self) -> u32 {
        self.next.checked_sub(1).map_or(0, |at| self.pieces[at].last_line)
    }

    fn descend(&mut self) -> Result<(), HclError> {
        self.depth += 1;
        if self.depth > 2 * MAX_HCL_DEPTH {
            let at = Position { line: self.peek().first_line, column: 1 };
            return Err(HclError::new(at, "nested too deep"));
        }
        Ok(())
    }

    /// Comments on lines of their own.
    fn above(&mut self) -> Vec<Above<'a>> {
        let mut found = Vec::new();
        while self.peek().kind == Kind::Comment {
            let (text, last_line) = (self.peek().text, self.peek().last_line);
            self.next += 1;
            found.push(Above { text, free_below: self.peek().first_line > last_line + 1 });
        }
        found
    }

    /// The same, where a comma may stand between them.
    fn above_after_comma(&mut self) -> Vec<Above<'a>> {
        let mut above = self.above();
        while self.peek().kind == Kind::Punct(',') {
            self.next += 1;
            above.extend(self.above());
        }
        above
    }

    /// A comment on the line that has just ended.
    fn beside(&mut self) -> Option<&'a str> {
        if self.peek().kind == Kind::Punct(',') {
            self.next += 1;
        }
        let piece = self.peek();
        let fits = piece.kind == Kind::Comment
            && piece.first_line == self.last_line()
            && piece.first_line == piece.last_line;
        let text = fits.then_some(piece.text)?;
        self.next += 1;
        Some(text)
    }

    /// Items up to a closing brace, which is taken, or the end.
    fn body(&mut self) -> Result<Body<'a>, HclError> {
        self.descend()?;
        let mut body = Body::default();
        loop {
            let above = self.above_after_comma();
            match self.peek().kind {
                Kind::End => {
                    body.below = above;
                    break;
                }
                Kind::Punct('}') => {
                    self.next += 1;
                    body.below = above;
                    break;
                }
                _ => body.items.push(self.item(above)?),
            }
        }
        self.depth -= 1;
        Ok(body)
    }

    fn item(&mut self, mut above: Vec<Above<'a>>) -> Result<Item<'a>, HclError> {
        let first_line = self.peek().first_line;
        let mut words = Vec::new();
        let mut assigned = false;
        loop {
            // A comment in the middle of a head goes above it.
            above.extend(self.above());
            match self.peek().kind {
                Kind::Word if !assigned => {
                    words.push(self.peek().text);
                    self.next += 1;
                }
                Kind::Punct('=') => {
                    assigned = true;
                    self.next += 1;
                }
                _ => break,
            }
        }
        let value = self.value(&mut above)?;
        let last_line = self.last_line();
        let beside = self.beside();
        Ok(Item { above, head: words.join(" "), assigned, value, beside, first_line, last_line })
    }

    fn value(&mut self, above: &mut Vec<Above<'a>>) -> Result<Node<'a>, HclError> {
        above.extend(self.above());
        let (kind, text) = (self.peek().kind, self.peek().text);
        self.next += 1;
        match kind {
            Kind::Punct('{') => Ok(Node::Object(self.body()?)),
            Kind::Punct('[') => self.list(),
            _ => Ok(Node::Word(text)),
        }
    }

    fn list(&mut self) -> Result<Node<'a>, HclError> {
        self.descend()?;
        let first_line = self.last_line();
        let mut elements = Vec::new();
        loop {
            let mut above = self.above_after_comma();
            if matches!(self.peek().kind, Kind::Punct(']') | Kind::End) {
                self.next += 1;
                self.depth -= 1;
                let bare = |element: &Element<'_>| element.above.is_empty() && element.beside.is_none();
                let in_line = self.last_line() == first_line && above.is_empty() && elements.iter().all(bare);
                return Ok(Node::List { elements, below: above, in_line });
            }
            let value = self.value(&mut above)?;
            let beside = self.beside();
            elements.push(Element { above, value, beside });
        }
    }
}

fn indent(depth: usize, out: &mut String) {
    out.push_str(&"  ".repeat(depth));
}

fn print_above(above: &[Above<'_>], depth: usize, out: &mut String) {
    for comment in above {
        indent(depth, out);
        out.push_str(comment.text);
        out.push('\n');
        if comment.free_below {
            out.push('\n');
        }
    }
}

/// Whether an item may stand right below the one before it.
fn joins(before: &Item<'_>, item: &Item<'_>) -> bool {
    let short = |item: &Item<'_>| {
        item.assigned && item.first_line == item.last_line && !matches!(item.value, Node::Object(_))
    };
    short(before) && short(item) && item.above.is_empty() && item.first_line == before.last_line + 1
}

fn print_body(body: &Body<'_>, depth: usize, top: bool, out: &mut String) {
    let mut at = 0;
    while at < body.items.len() {
        let rest = &body.items[at..];
        let run =
            if top { 1 } else { 1 + rest.windows(2).take_while(|pair| joins(&pair[0], &pair[1])).count() };
        let width = rest[..run].iter().map(|item| item.head.chars().count()).max().unwrap_or(0);
        if at > 0 {
            out.push('\n');
        }
        for item in &rest[..run] {
            print_item(item, if run > 1 { width } else { 0 }, depth, out);
        }
        at += run;
    }
    if !body.items.is_empty() && !body.below.is_empty() {
        out.push('\n');
    }
    print_above(&body.below, depth, out);
    // Nothing is free below the last comment.
    if out.ends_with("\n\n") {
        out.pop();
    }
}

fn print_item(item: &Item<'_>, width: usize, depth: usize, out: &mut String) {
    print_above(&item.above, depth, out);
    indent(depth, out);
    out.push_str(&item.head);
    if item.assigned {
        out.push_str(&" ".repeat(width.saturating_sub(item.head.chars().count())));
        out.push_str(" =");
    }
    out.push(' ');
    print_node(&item.value, depth, out);
    print_end(item.beside, out);
}

fn print_end(beside: Option<&str>, out: &mut String) {
    if let Some(comment) = beside {
        out.push(' ');
        out.push_str(comment);
    }
    out.push('\n');
}

fn print_node(node: &Node<'_>, depth: usize, out: &mut String) {
    match node {
        Node::Word(text) => out.push_str(text),
        Node::Object(body) if body.items.is_empty() && body.below.is_empty() => out.push_str("{}"),
        Node::Object(body) => {
            out.push_str("{\n");
            print_body(body, depth + 1, false, out);
            indent(depth, out);
            out.push('}');
        }
        Node::List { elements, below, in_line } if *in_line || (elements.is_empty() && below.is_empty()) => {
            out.push('[');
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                print_node(&element.value, depth, out);
            }
            out.push(']');
        }
        Node::List { elements, below, .. } => {
            out.push_str("[\n");
            for (at, element) in elements.iter().enumerate() {
                if at > 0 && !element.above.is_empty() {
                    out.push('\n');
                }
                print_above(&element.above, depth + 1, out);
                indent(depth + 1, out);
                print_node(&element.value, depth + 1, out);
                if matches!(element.value, Node::Word(text) if text.starts_with("<<")) {
                    // A heredoc's marker must be alone on its line.
                    out.push('\n');
                    indent(depth + 1, out);
                }
                out.push(',');
                print_end(element.beside, out);
            }
            print_above(below, depth + 1, out);
            indent(depth, out);
            out.push(']');
        }
    }
}

#[cfg(test)]
mod tests;
