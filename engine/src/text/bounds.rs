//! Bounds on a chat template: the bytes of all text and lists that one rendering builds.
//!
//! minijinja counts instructions (its fuel), but one instruction may double a string or repeat it
//! a million times. So templates are compiled here, and the instructions that build or compare
//! values become calls of functions that take the size of the result from a [`Budget`] first.
//! Printed values, filters and methods are charged too. Text between tags is bounded by the fuel.
//!
//! The compiler is minijinja's own, which it offers without a promise of stability
//! (`unstable_machinery`); `Cargo.lock` pins the version.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use minijinja::machinery::{
    CompiledTemplate, Instruction, Instructions, TemplateConfig, Token, Vm, WhitespaceConfig,
    make_string_output, tokenize,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Expression, State};

/// The template's name in its environment.
const NAME: &str = "chat_template";
/// Instructions that a rendering may take: many times the need of long conversations.
const FUEL: usize = 1_000_000;
/// Bytes that a rendering may build, besides [`PER_BYTE`] times its messages.
const BUDGET: usize = 16 << 20;
/// Bytes that a rendering may build for every byte of its messages.
const PER_BYTE: usize = 64;
/// Bytes that the fuel suffices to write of text between tags.
const RAW_TEXT: usize = 128 << 20;
/// Bytes that an element of a list is charged with.
const ELEMENT: usize = 32;
/// A variable of value 1. A product with it is no constant, so the compiler, which computes
/// constants, leaves it to the rendering.
const ONE: &str = "__one";
/// transformers' settings.
const WHITESPACE: WhitespaceConfig = WhitespaceConfig {
    keep_trailing_newline: false,
    lstrip_blocks: true,
    trim_blocks: true,
};

/// The operators that are charged: the name that the function in their place has, which no template
/// can use, and what it computes of `a`, `b`, `c` and `d`.
const OPERATORS: [(&str, &str); 11] = [
    ("+", "a + b"),
    ("*", "a * b"),
    ("~", "a ~ b"),
    ("==", "a == b"),
    ("!=", "a != b"),
    ("<", "a < b"),
    ("<=", "a <= b"),
    (">", "a > b"),
    (">=", "a >= b"),
    (" in ", "a in b"),
    ("[:]", "a[b:c:d]"),
];
/// A filter that is not minijinja's own.
const TO_JSON: &str = "tojson";
/// What a value's JSON takes for each byte that it prints: a tree, and at most 16 spaces a level.
const JSON: usize = 64;
/// The function in place of a list's brackets.
const LIST: &str = "[,]";

/// The dialect without charges, which computes what has been charged.
static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.add_filter(TO_JSON, super::jinja::tojson);
    environment
});
static COMPUTED: LazyLock<BTreeMap<&'static str, Expression<'static, 'static>>> =
    LazyLock::new(|| {
        let compiled = |(name, text)| Some((name, PLAIN.compile_expression(text).ok()?));
        OPERATORS.into_iter().filter_map(compiled).collect()
    });

/// minijinja's filters that look at the elements of a list and not into them.
#[rustfmt::skip]
const OF_LISTS: [&str; 28] = [
    "length", "count", "dictsort", "items", "reverse", "default", "d", "round", "abs", "int", "float",
    "attr", "first", "last", "min", "max", "sort", "list", "bool", "batch", "slice", "sum", "select",
    "reject", "selectattr", "rejectattr", "map", "chain",
];
/// The others; `groupby`, `unique` and `zip` compare or pair elements.
#[rustfmt::skip]
const OF_TEXTS: [&str; 18] = [
    "safe", "escape", "e", "lower", "upper", "title", "capitalize", "replace", "trim", "join", "split",
    "lines", "string", "indent", "groupby", "unique", "zip", "format",
];

/// What is left of the bytes that one rendering may build.
#[derive(Clone)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// For messages of so many bytes.
    fn new(input: usize) -> Budget {
        let bytes = BUDGET.saturating_add(input.saturating_mul(PER_BYTE));
        Budget(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    /// There are fewer.
    pub fn charge(&self, bytes: usize) -> Result<(), Error> {
        let left = self.0.load(Ordering::Relaxed).checked_sub(bytes);
        let left = left.ok_or_else(|| {
            let problem = "it builds far more text than a conversation has";
            Error::new(ErrorKind::InvalidOperation, problem)
        })?;
        self.0.store(left, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the bytes of a printed `value`. A list that lists share counts as often as it is
    /// printed.
    pub fn charge_printed(&self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::String => self.charge(1 + text_bytes(value)),
            ValueKind::Seq | ValueKind::Iterable => {
                self.charge(ELEMENT)?;
                let mut items = value.try_iter()?;
                items.try_for_each(|item| self.charge_printed(&item))
            }
            ValueKind::Map => {
                self.charge(ELEMENT)?;
                value.try_iter()?.try_for_each(|key| {
                    self.charge_printed(&key)?;
                    self.charge_printed(&value.get_item(&key)?)
                })
            }
            _ => self.charge(ELEMENT),
        }
    }

    /// Takes what an operator builds or compares.
    fn charge_operator(&self, name: &str, args: &[Value]) -> Result<(), Error> {
        match (name, args) {
            ("*", [a, b]) => {
                let times = |value: &Value| value.as_usize().unwrap_or(1);
                self.charge(shallow(a).saturating_mul(times(b)))?;
                self.charge(shallow(b).saturating_mul(times(a)))
            }
            ("+" | "[:]", _) => args
                .iter()
                .try_for_each(|value| self.charge(shallow(value))),
            _ => args.iter().try_for_each(|value| self.charge_printed(value)),
        }
    }

    /// Takes what a filter or method builds of its arguments, the first one included.
    pub fn charge_call(&self, name: &str, args: &[Value]) -> Result<(), Error> {
        if OF_LISTS.contains(&name) {
            (args.iter()).try_for_each(|value| self.charge(shallow(value)))?;
        } else {
            (args.iter()).try_for_each(|value| self.charge_printed(value))?;
        }
        let Some((first, rest)) = args.split_first() else {
            return Ok(());
        };
        let length = |value: &Value| match value.kind() {
            ValueKind::Number => value.as_usize().unwrap_or(0),
            _ => shallow(value),
        };
        let others = rest.iter().map(length).fold(1, usize::saturating_add);
        match name {
            // A text or a number of spaces for every character or element.
            "replace" | "join" | "indent" => {
                self.charge(shallow(first).saturating_add(1).saturating_mul(others))
            }
            "format" => {
                let widths = first.as_str().map_or(0, widths);
                let each = others.saturating_add(widths);
                self.charge(shallow(first).saturating_add(1).saturating_mul(each))
            }
            // So many lists, whatever they hold, or so many digits.
            "batch" | "slice" | "round" => self.charge(others.saturating_mul(ELEMENT)),
            // A list of characters or words.
            "list" | "split" | "lines" | "splitlines" | "reverse" => {
                self.charge(shallow(first).saturating_mul(ELEMENT))
            }
            "map" => self.charge_map(first, rest),
            TO_JSON => (1..JSON).try_for_each(|_| self.charge_printed(first)),
            _ => Ok(()),
        }
    }

    /// Takes what a filter builds of every element of a list.
    fn charge_map(&self, list: &Value, rest: &[Value]) -> Result<(), Error> {
        let Some((name, rest)) = rest.split_first() else {
            return Ok(());
        };
        let Some(name) = name.as_str() else {
            return Ok(());
        };
        list.try_iter()?.try_for_each(|item| {
            let args: Vec<Value> = std::iter::once(item).chain(rest.iter().cloned()).collect();
            self.charge_call(name, &args)
        })
    }

    /// Puts charged functions and filters in place of minijinja's own.
    fn install(&self, environment: &mut Environment<'_>) {
        for (name, expression) in COMPUTED.iter() {
            let budget = self.clone();
            environment.add_function(*name, move |args: Rest<Value>| {
                budget.charge_operator(name, &args)?;
                let named = ["a", "b", "c", "d"].into_iter().zip(args.iter().cloned());
                // Its place is in the expression; the caller knows the one in the template.
                (expression.eval(Value::from_iter(named))).map_err(|error| without_place(&error))
            });
        }
        let budget = self.clone();
        environment.add_function(LIST, move |items: Rest<Value>| {
            budget.charge(ELEMENT)?;
            items
                .iter()
                .try_for_each(|item| budget.charge_printed(item))?;
            Ok::<_, Error>(Value::from(items.0))
        });
        for name in OF_LISTS.into_iter().chain(OF_TEXTS).chain([TO_JSON]) {
            let budget = self.clone();
            environment.add_filter(name, move |args: Rest<Value>| {
                budget.charge_call(name, &args)?;
                PLAIN.empty_state().apply_filter(name, &args)
            });
        }
        let budget = self.clone();
        environment.set_unknown_method_callback(
            move |state: &State<'_, '_>, value: &Value, method: &str, args: &[Value]| {
                let all: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
                budget.charge_call(method, &all)?;
                minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
            },
        );
        // Neither is in transformers, and both print everything there is.
        environment.remove_filter("pprint");
        environment.remove_filter("urlencode");
        environment.remove_global("debug");
        environment.add_global(ONE, 1);
    }
}

/// Compiles a template and, with `context`, renders it; `dialect` adds what transformers has, with
/// the budget for values that it prints. `input` is the size of the messages in bytes.
///
/// # Errors
/// A template that does not parse or fails, runs without end or builds too much.
pub(super) fn run(
    text: &str,
    context: Option<(Value, usize)>,
    dialect: impl FnOnce(&mut Environment<'_>, Budget),
) -> Result<String, Error> {
    let text = without_constant_products(text);
    let config = TemplateConfig {
        syntax_config: SyntaxConfig,
        ws_config: WHITESPACE,
        default_auto_escape: Arc::new(|_| AutoEscape::None),
    };
    let mut compiled = CompiledTemplate::new(NAME, &text, &config)?;
    let mut longest = 1;
    for body in std::iter::once(&mut compiled.instructions).chain(compiled.blocks.values_mut()) {
        longest = longest.max(charged(body));
    }
    let Some((context, input)) = context else {
        return Ok(String::new());
    };
    let budget = Budget::new(input);
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL.min(RAW_TEXT / longest) as u64));
    budget.install(&mut environment);
    dialect(&mut environment, budget);
    let mut out = String::new();
    Vm::new(&environment).eval(
        &compiled.instructions,
        context,
        &compiled.blocks,
        &mut make_string_output(&mut out),
        AutoEscape::None,
    )?;
    Ok(out)
}

/// Turns operators into calls of charged functions; the length of the longest text between tags.
fn charged(body: &mut Instructions<'_>) -> usize {
    let mut longest = 0;
    for at in 0.. {
        let Some(instruction) = body.get_mut(at) else {
            break;
        };
        let (name, arguments) = match instruction {
            Instruction::Add => ("+", 2),
            Instruction::Mul => ("*", 2),
            Instruction::StringConcat => ("~", 2),
            Instruction::Eq => ("==", 2),
            Instruction::Ne => ("!=", 2),
            Instruction::Lt => ("<", 2),
            Instruction::Lte => ("<=", 2),
            Instruction::Gt => (">", 2),
            Instruction::Gte => (">=", 2),
            Instruction::In => (" in ", 2),
            Instruction::Slice => ("[:]", 4),
            Instruction::BuildList(Some(count)) => match u16::try_from(*count) {
                Ok(count) => (LIST, count),
                Err(_) => continue,
            },
            Instruction::EmitRaw(raw) => {
                longest = longest.max(raw.len());
                continue;
            }
            _ => continue,
        };
        *instruction = Instruction::CallFunction(name, Some(arguments));
    }
    longest
}

/// The template with [`ONE`] in every product.
fn without_constant_products(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut taken = 0;
    // What begins a call's argument or an element is no product: `f(*args)`.
    let mut operand = false;
    for token in tokenize(text, false, SyntaxConfig, WHITESPACE) {
        // The compiler says what is wrong with it.
        let Ok((token, span)) = token else { break };
        let at = span.start_offset as usize;
        if let (Token::Mul, true, Some(before)) = (&token, operand, text.get(taken..at)) {
            out.push_str(before);
            out.push_str("* ");
            out.push_str(ONE);
            out.push(' ');
            taken = at;
        }
        operand = !matches!(token, Token::ParenOpen | Token::Comma | Token::BracketOpen);
    }
    match taken {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(out + &text[taken..]),
    }
}

/// Bytes of a text; bytes of a list without what its elements have.
fn shallow(value: &Value) -> usize {
    match value.kind() {
        ValueKind::String => 1 + text_bytes(value),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            value.len().unwrap_or(1).saturating_mul(ELEMENT)
        }
        _ => ELEMENT,
    }
}

fn text_bytes(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

/// The sum of the numbers in a format: the widths and precisions it asks for.
fn widths(format: &str) -> usize {
    let numbers = format.split(|c: char| !c.is_ascii_digit());
    let number = |digits: &str| digits.parse().unwrap_or(usize::MAX);
    let numbers = numbers.filter(|digits| !digits.is_empty()).map(number);
    numbers.fold(0, usize::saturating_add)
}

/// The error without the place where it was made.
fn without_place(error: &Error) -> Error {
    let detail = error.detail().map(str::to_string);
    Error::new(error.kind(), detail.unwrap_or_default())
}
