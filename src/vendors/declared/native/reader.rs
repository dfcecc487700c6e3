//! Reads the usual forms of expressions, with the precedence that minijinja has.

use super::{
    super::path::{Path, Step},
    Literal, Native, Test,
};

/// Deepest nesting of braces and of `else`.
const DEEPEST: usize = 16;

/// `None` for any other form.
pub(super) fn read(text: &str) -> Option<Native> {
    let tokens = tokens(text)?;
    let mut reader = Reader { tokens: &tokens, depth: DEEPEST };
    let native = reader.ternary()?;
    reader.tokens.is_empty().then_some(native)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A name, a keyword or a path.
    Name(String),
    Integer(i64),
    Text(String),
    /// `.`, `[`, `]`, `(`, `)`, `,`, `|`, `==` or `!=`.
    Sign(&'static str),
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    const SIGNS: [&str; 9] = ["==", "!=", ".", "[", "]", "(", ")", ",", "|"];
    let (mut tokens, mut rest) = (Vec::new(), text.trim_ascii_start());
    while let Some(c) = rest.chars().next() {
        let end = |fits: fn(char) -> bool| rest.find(|c| !fits(c)).unwrap_or(rest.len());
        let length = if c.is_ascii_alphabetic() || c == '_' {
            let end = end(|c| c.is_ascii_alphanumeric() || c == '_');
            tokens.push(Token::Name(rest[..end].to_owned()));
            end
        } else if c.is_ascii_digit() {
            let end = end(|c| c.is_ascii_digit());
            // Anything that is more than digits, such as 1.5 or 1e3.
            if rest[end..].starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) {
                return None;
            }
            tokens.push(Token::Integer(rest[..end].parse().ok()?));
            end
        } else if matches!(c, '\'' | '"') {
            let (inner, _) = rest[1..].split_once(c)?;
            if inner.contains('\\') {
                return None;
            }
            tokens.push(Token::Text(inner.to_owned()));
            inner.len() + 2
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign))?;
            tokens.push(Token::Sign(sign));
            sign.len()
        };
        rest = rest[length..].trim_ascii_start();
    }
    Some(tokens)
}

struct Reader<'t> {
    tokens: &'t [Token],
    depth: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<&Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn skip_name(&mut self, word: &str) -> bool {
        let is_next = matches!(self.tokens.first(), Some(Token::Name(name)) if name == word);
        if is_next {
            self.tokens = &self.tokens[1..];
        }
        is_next
    }

    fn skip(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.tokens.first(), Some(Token::Sign(own)) if *own == sign);
        if is_next {
            self.tokens = &self.tokens[1..];
        }
        is_next
    }

    /// `a if b else c`.
    fn ternary(&mut self) -> Option<Native> {
        self.depth = self.depth.checked_sub(1)?;
        let mut then = self.or()?;
        while self.skip_name("if") {
            let test = Box::new(self.or()?);
            let otherwise = if self.skip_name("else") { Some(Box::new(self.ternary()?)) } else { None };
            then = Native::If { test, then: Box::new(then), otherwise };
        }
        self.depth += 1;
        Some(then)
    }

    fn or(&mut self) -> Option<Native> {
        let mut one = self.and()?;
        while self.skip_name("or") {
            one = Native::Or(Box::new(one), Box::new(self.and()?));
        }
        Some(one)
    }

    fn and(&mut self) -> Option<Native> {
        let mut one = self.not()?;
        while self.skip_name("and") {
            one = Native::And(Box::new(one), Box::new(self.not()?));
        }
        Some(one)
    }

    fn not(&mut self) -> Option<Native> {
        if !self.skip_name("not") {
            return self.comparison();
        }
        self.depth = self.depth.checked_sub(1)?;
        let of = self.not()?;
        self.depth += 1;
        Some(Native::Not(Box::new(of)))
    }

    /// One comparison; minijinja has chains of them.
    fn comparison(&mut self) -> Option<Native> {
        let one = self.filtered()?;
        let compared = if self.skip("==") {
            Native::Equal(Box::new(one), Box::new(self.filtered()?))
        } else if self.skip("!=") {
            Native::Not(Box::new(Native::Equal(Box::new(one), Box::new(self.filtered()?))))
        } else if self.skip_name("in") {
            Native::In(Box::new(one), self.list()?)
        } else if self.skip_name("not") {
            if !self.skip_name("in") {
                return None;
            }
            Native::Not(Box::new(Native::In(Box::new(one), self.list()?)))
        } else {
            return Some(one);
        };
        let is_chain = match self.tokens.first() {
            Some(Token::Sign("==" | "!=")) => true,
            Some(Token::Name(name)) => name == "in" || name == "not",
            _ => false,
        };
        (!is_chain).then_some(compared)
    }

    /// A value with its filters and tests.
    fn filtered(&mut self) -> Option<Native> {
        let mut of = self.primary()?;
        loop {
            if self.skip("|") {
                let Token::Name(filter) = self.next()? else { return None };
                let filter = filter.clone();
                let argument = if self.skip("(") {
                    let argument = self.literal()?;
                    if !self.skip(")") {
                        return None;
                    }
                    Some(argument)
                } else {
                    None
                };
                of = match (&*filter, argument) {
                    ("first_line", None) => Native::FirstLine(Box::new(of)),
                    ("file_name", None) => Native::FileName(Box::new(of)),
                    ("length" | "count", None) => Native::Length(Box::new(of)),
                    ("default" | "d", Some(literal)) => Native::Default(Box::new(of), literal),
                    _ => return None,
                };
            } else if self.skip_name("is") {
                let is_not = self.skip_name("not");
                let Token::Name(test) = self.next()? else { return None };
                let test = match &**test {
                    "defined" => Test::Defined,
                    "undefined" => Test::Undefined,
                    "none" => Test::None,
                    "boolean" => Test::Boolean,
                    "string" => Test::Text,
                    "sequence" => Test::Sequence,
                    "mapping" => Test::Mapping,
                    _ => return None,
                };
                of = Native::Is(Box::new(of), test);
                if is_not {
                    of = Native::Not(Box::new(of));
                }
                // What follows may be an argument of the test.
                let is_over = match self.tokens.first() {
                    None | Some(Token::Sign("==" | "!=" | ")" | "|" | "]" | ",")) => true,
                    Some(Token::Name(name)) => matches!(&**name, "and" | "or" | "else" | "is"),
                    _ => false,
                };
                if !is_over {
                    return None;
                }
            } else {
                return Some(of);
            }
        }
    }

    fn primary(&mut self) -> Option<Native> {
        if self.skip("(") {
            let inner = self.ternary()?;
            // A value in braces may be followed by a step.
            return (self.skip(")") && !matches!(self.tokens.first(), Some(Token::Sign("." | "[" | "("))))
                .then_some(inner);
        }
        if let Some(literal) = self.literal() {
            return (!matches!(self.tokens.first(), Some(Token::Sign("." | "[" | "("))))
                .then_some(Native::Literal(literal));
        }
        let Token::Name(root) = self.next()? else { return None };
        let root = root.clone();
        let mut steps = Vec::new();
        loop {
            if self.skip(".") {
                let Token::Name(name) = self.next()? else { return None };
                steps.push(Step::Name(name.clone()));
            } else if self.skip("[") {
                steps.push(match self.next()? {
                    Token::Text(name) => Step::Name(name.clone()),
                    Token::Integer(index) => Step::Index(usize::try_from(*index).ok()?),
                    _ => return None,
                });
                if !self.skip("]") {
                    return None;
                }
            } else if self.skip("(") {
                return None;
            } else {
                return match (&*root, &steps[..]) {
                    ("id", [Step::Name(name)]) => Some(Native::Named("id", name.clone())),
                    ("params", [Step::Name(name)]) => Some(Native::Named("params", name.clone())),
                    _ => Path::new(&root, steps).map(Native::Path),
                };
            }
        }
    }

    fn literal(&mut self) -> Option<Literal> {
        let literal = match self.tokens.first()? {
            Token::Integer(integer) => Literal::Integer(*integer),
            Token::Text(text) => Literal::Text(text.clone()),
            Token::Name(name) => match &**name {
                "none" | "None" => Literal::None,
                "true" | "True" => Literal::Flag(true),
                "false" | "False" => Literal::Flag(false),
                _ => return None,
            },
            Token::Sign(_) => return None,
        };
        self.tokens = &self.tokens[1..];
        Some(literal)
    }

    /// A list of literals.
    fn list(&mut self) -> Option<Vec<Literal>> {
        if !self.skip("[") {
            return None;
        }
        let mut literals = Vec::new();
        loop {
            if self.skip("]") {
                break;
            }
            literals.push(self.literal()?);
            if !self.skip(",") && self.tokens.first() != Some(&Token::Sign("]")) {
                return None;
            }
        }
        // What follows may be a step or a filter of the list.
        (!matches!(self.tokens.first(), Some(Token::Sign("." | "[" | "|")))).then_some(literals)
    }
}
