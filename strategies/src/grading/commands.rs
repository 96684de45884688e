//! What LaTeX's commands mean for an answer: most decorations mean nothing.

/// What a command does to an answer.
pub(super) enum Meaning {
    /// It is dropped: size, style, a box around its argument.
    Nothing,
    /// The size of a delimiter, which must follow.
    Size,
    /// Space.
    Space,
    /// A fraction or another command with two arguments, which may be single digits.
    Fraction(&'static str),
    /// Another way to write a character.
    Char(char),
    /// Another way to write a command.
    Command(&'static str),
    /// The sign of degrees.
    Degree,
    /// It is dropped with so many arguments.
    Without(usize),
    /// It is dropped with the length behind it.
    Length,
    /// Text is in its argument.
    Text,
    /// A letter in another font is in its argument.
    Letter,
    /// An environment begins.
    Environment,
    /// A modulus is in its argument.
    Modulus,
    /// A symbol of its own.
    Symbol,
}

/// The meaning of a command, given without its backslash.
pub(super) fn meaning(name: &str) -> Meaning {
    if let Some(meaning) = decoration(name) {
        return meaning;
    }
    match name {
        "frac" | "dfrac" | "tfrac" | "cfrac" | "nicefrac" | "sfrac" => Meaning::Fraction("frac"),
        "binom" | "dbinom" | "tbinom" => Meaning::Fraction("binom"),
        "cdot" | "times" | "ast" => Meaning::Char('*'),
        "div" | "slash" => Meaning::Char('/'),
        "degree" | "textdegree" => Meaning::Degree,
        "langle" | "lparen" => Meaning::Char('('),
        "rangle" | "rparen" => Meaning::Char(')'),
        "lbrack" => Meaning::Char('['),
        "rbrack" => Meaning::Char(']'),
        "lbrace" => Meaning::Command("{"),
        "rbrace" => Meaning::Command("}"),
        "lvert" | "rvert" | "vert" | "mid" => Meaning::Char('|'),
        "Vert" | "lVert" | "rVert" => Meaning::Command("|"),
        "varnothing" => Meaning::Command("emptyset"),
        "prime" => Meaning::Char('\''),
        "colon" => Meaning::Char(':'),
        "land" => Meaning::Command("wedge"),
        "lor" => Meaning::Command("vee"),
        "backslash" => Meaning::Command("setminus"),
        "simeq" | "thickapprox" | "approxeq" | "doteq" => Meaning::Command("approx"),
        "le" | "leqslant" | "leqq" => Meaning::Command("leq"),
        "ge" | "geqslant" | "geqq" => Meaning::Command("geq"),
        "ne" => Meaning::Command("neq"),
        "lt" => Meaning::Char('<'),
        "gt" => Meaning::Char('>'),
        "cdots" | "dots" | "dotsc" | "dotsb" | "textellipsis" => Meaning::Command("ldots"),
        "rightarrow" | "longrightarrow" => Meaning::Command("to"),
        "tg" => Meaning::Command("tan"),
        "ctg" => Meaning::Command("cot"),
        "textdollar" => Meaning::Command("$"),
        "percent" => Meaning::Char('%'),
        "pounds" => Meaning::Char('£'),
        "euro" => Meaning::Char('€'),
        "bmod" => Meaning::Command("mod"),
        "pmod" | "pod" => Meaning::Modulus,
        "overrightarrow" | "vv" => Meaning::Command("vec"),
        "newline" | "cr" => Meaning::Command("\\"),
        "begin" => Meaning::Environment,
        "text" | "textbf" | "textit" | "textrm" | "textnormal" | "mbox" | "mathrm" | "mathsf"
        | "mathtt" | "texttt" | "textsf" | "textsc" | "operatorname" | "hbox" | "textup"
        | "emph" | "mathnormal" => Meaning::Text,
        "mathbf" | "mathit" | "boldsymbol" | "bm" | "pmb" | "mathbfit" => Meaning::Letter,
        _ => Meaning::Symbol,
    }
}

/// The meaning of a decoration: size, style, colour, boxes, space.
fn decoration(name: &str) -> Option<Meaning> {
    Some(match name {
        "left" | "right" | "middle" | "big" | "Big" | "bigl" | "bigr" | "Bigl" | "Bigr"
        | "bigm" | "Bigm" | "bigg" | "Bigg" | "biggl" | "biggr" | "Biggl" | "Biggr" => {
            Meaning::Size
        }
        "displaystyle" | "textstyle" | "scriptstyle" | "scriptscriptstyle" | "limits"
        | "nolimits" | "mathstrut" | "strut" | "rm" | "bf" | "it" | "sf" | "tt" | "bold"
        | "boldmath" | "tiny" | "scriptsize" | "footnotesize" | "small" | "normalsize"
        | "large" | "Large" | "LARGE" | "huge" | "Huge" | "boxed" | "fbox" | "framebox"
        | "ensuremath" | "underline" | "uline" | "mathop" | "mathrel" | "mathbin" | "mathord"
        | "mathopen" | "mathclose" | "mathpunct" | "smash" | "nonumber" | "notag" | "noindent"
        | "centering" | "hfill" | "checkmark" | "blacksquare" | "qedsymbol" | "qed" | "relax"
        | "allowbreak" | "nobreak" => Meaning::Nothing,
        "quad" | "qquad" | "enspace" | "thinspace" | "medspace" | "thickspace" | "space"
        | "negthinspace" | "enskip" | "nbsp" => Meaning::Space,
        "hspace" | "vspace" | "color" | "label" | "tag" | "phantom" | "hphantom" | "vphantom"
        | "textcolor" | "colorbox" | "hskip*" => Meaning::Without(1),
        "fcolorbox" | "rule" => Meaning::Without(2),
        "kern" | "hskip" | "mkern" | "mskip" => Meaning::Length,
        _ => return None,
    })
}
