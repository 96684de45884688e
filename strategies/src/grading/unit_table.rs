//! Units of measure: their names, and how many of a base unit each is.
//!
//! Factors are exact definitions: the international yard and pound (1959), the US gallon of 231
//! cubic inches, the SI's prefixes. A month is a twelfth of a year and no number of days.

use num_rational::BigRational;

/// A row of the table: the names, the first one canonical; the base units with their exponents;
/// how many of them it is, as a fraction.
pub(super) struct Measure {
    pub(super) names: &'static [&'static str],
    pub(super) base: &'static [(&'static str, i32)],
    factor: (i64, i64),
}

impl Measure {
    pub(super) fn factor(&self) -> BigRational {
        BigRational::new(self.factor.0.into(), self.factor.1.into())
    }
}

const fn row(
    names: &'static [&'static str],
    base: &'static [(&'static str, i32)],
    factor: (i64, i64),
) -> Measure {
    Measure {
        names,
        base,
        factor,
    }
}

/// The unit of `50\%`: the one that has a value.
pub(super) const PERCENT: &str = "percent";

const M: &[(&str, i32)] = &[("m", 1)];
const M3: &[(&str, i32)] = &[("m", 3)];
const KG: &[(&str, i32)] = &[("kg", 1)];
const S: &[(&str, i32)] = &[("s", 1)];
const PER_S: &[(&str, i32)] = &[("s", -1)];
const SPEED: &[(&str, i32)] = &[("m", 1), ("s", -1)];
const FORCE: &[(&str, i32)] = &[("kg", 1), ("m", 1), ("s", -2)];
const ENERGY: &[(&str, i32)] = &[("kg", 1), ("m", 2), ("s", -2)];
const POWER: &[(&str, i32)] = &[("kg", 1), ("m", 2), ("s", -3)];
const PRESSURE: &[(&str, i32)] = &[("kg", 1), ("m", -1), ("s", -2)];
const MONEY: &[(&str, i32)] = &[("dollar", 1)];
const YEAR: &[(&str, i32)] = &[("year", 1)];
const ANGLE: &[(&str, i32)] = &[("degree", 1)];

const TABLE: &[Measure] = &[
    row(&["degree", "degrees", "deg"], ANGLE, (1, 1)),
    row(&["radian", "radians", "rad"], &[("radian", 1)], (1, 1)),
    row(&["dollar", "dollars", "usd", "USD"], MONEY, (1, 1)),
    row(&["cent", "cents"], MONEY, (1, 100)),
    row(&["euro", "euros", "eur", "EUR"], &[("euro", 1)], (1, 1)),
    row(
        &["pound sterling", "gbp", "GBP"],
        &[("pound sterling", 1)],
        (1, 1),
    ),
    row(&["yuan", "rmb", "RMB", "cny"], &[("yuan", 1)], (1, 1)),
    row(&["rupee", "rupees", "rs"], &[("rupee", 1)], (1, 1)),
    row(&["inch", "inches", "in"], M, (254, 10_000)),
    row(&["foot", "feet", "ft"], M, (3_048, 10_000)),
    row(&["yard", "yards", "yd", "yds"], M, (9_144, 10_000)),
    row(&["mile", "miles", "mi"], M, (1_609_344, 1_000)),
    row(
        &["nanometer", "nanometers", "nanometre", "nanometres", "nm"],
        M,
        (1, 1_000_000_000),
    ),
    row(
        &["micrometer", "micrometers", "micron", "microns"],
        M,
        (1, 1_000_000),
    ),
    row(
        &[
            "millimeter",
            "millimeters",
            "millimetre",
            "millimetres",
            "mm",
        ],
        M,
        (1, 1_000),
    ),
    row(
        &[
            "centimeter",
            "centimeters",
            "centimetre",
            "centimetres",
            "cm",
        ],
        M,
        (1, 100),
    ),
    row(
        &["decimeter", "decimeters", "decimetre", "decimetres", "dm"],
        M,
        (1, 10),
    ),
    row(&["meter", "meters", "metre", "metres", "m"], M, (1, 1)),
    row(
        &["kilometer", "kilometers", "kilometre", "kilometres", "km"],
        M,
        (1_000, 1),
    ),
    row(
        &["acre", "acres"],
        &[("m", 2)],
        (40_468_564_224, 10_000_000),
    ),
    row(&["hectare", "hectares", "ha"], &[("m", 2)], (10_000, 1)),
    row(&["milligram", "milligrams", "mg"], KG, (1, 1_000_000)),
    row(&["gram", "grams", "gramme", "grammes", "g"], KG, (1, 1_000)),
    row(
        &["kilogram", "kilograms", "kg", "kilo", "kilos"],
        KG,
        (1, 1),
    ),
    row(&["tonne", "tonnes"], KG, (1_000, 1)),
    row(
        &["pound", "pounds", "lb", "lbs"],
        KG,
        (45_359_237, 100_000_000),
    ),
    row(&["ounce", "ounces", "oz"], KG, (45_359_237, 1_600_000_000)),
    row(&["millisecond", "milliseconds", "ms"], S, (1, 1_000)),
    row(&["second", "seconds", "sec", "secs", "s"], S, (1, 1)),
    row(&["minute", "minutes", "min", "mins"], S, (60, 1)),
    row(&["hour", "hours", "hr", "hrs", "h"], S, (3_600, 1)),
    row(&["day", "days"], S, (86_400, 1)),
    row(&["week", "weeks", "wk", "wks"], S, (604_800, 1)),
    row(&["month", "months"], YEAR, (1, 12)),
    row(&["year", "years", "yr", "yrs"], YEAR, (1, 1)),
    row(&["hertz", "Hz", "hz"], PER_S, (1, 1)),
    row(&["kHz", "khz", "kilohertz"], PER_S, (1_000, 1)),
    row(&["mph"], SPEED, (1_609_344, 3_600_000)),
    row(&["kph", "kmh", "kmph"], SPEED, (1_000, 3_600)),
    row(
        &[
            "milliliter",
            "milliliters",
            "millilitre",
            "millilitres",
            "ml",
            "mL",
        ],
        M3,
        (1, 1_000_000),
    ),
    row(&["liter", "liters", "litre", "litres", "L"], M3, (1, 1_000)),
    row(
        &["gallon", "gallons", "gal"],
        M3,
        (3_785_411_784, 1_000_000_000_000),
    ),
    row(
        &["quart", "quarts", "qt", "qts"],
        M3,
        (946_352_946, 1_000_000_000_000),
    ),
    row(
        &["pint", "pints", "pt", "pts"],
        M3,
        (473_176_473, 1_000_000_000_000),
    ),
    row(&["newton", "newtons", "N"], FORCE, (1, 1)),
    row(&["kilonewton", "kilonewtons", "kN"], FORCE, (1_000, 1)),
    row(&["joule", "joules", "J"], ENERGY, (1, 1)),
    row(&["kilojoule", "kilojoules", "kJ"], ENERGY, (1_000, 1)),
    row(&["kWh", "kwh"], ENERGY, (3_600_000, 1)),
    row(&["watt", "watts", "W"], POWER, (1, 1)),
    row(&["kilowatt", "kilowatts", "kW"], POWER, (1_000, 1)),
    row(&["megawatt", "megawatts", "MW"], POWER, (1_000_000, 1)),
    row(&["pascal", "pascals", "Pa"], PRESSURE, (1, 1)),
    row(&["kilopascal", "kilopascals", "kPa"], PRESSURE, (1_000, 1)),
    row(&["volt", "volts", "V"], &[("volt", 1)], (1, 1)),
    row(
        &["ampere", "amperes", "amp", "amps", "A"],
        &[("ampere", 1)],
        (1, 1),
    ),
    row(&["coulomb", "coulombs", "C"], &[("coulomb", 1)], (1, 1)),
    row(&["ohm", "ohms"], &[("ohm", 1)], (1, 1)),
    row(&["kelvin", "kelvins", "K"], &[("kelvin", 1)], (1, 1)),
    row(&["mole", "moles", "mol"], &[("mole", 1)], (1, 1)),
    row(&["calorie", "calories", "cal"], &[("calorie", 1)], (1, 1)),
    row(&[PERCENT, "percents", "pct"], &[(PERCENT, 1)], (1, 1)),
];

/// The unit of a name: as it is written, or in small letters.
pub(super) fn known(name: &str) -> Option<&'static Measure> {
    let find = |name: &str| TABLE.iter().find(|row| row.names.contains(&name));
    find(name).or_else(|| {
        let small = name.to_lowercase();
        (small.len() >= 2).then(|| find(&small)).flatten()
    })
}

/// Words that multiply the number before them.
pub(super) fn multiplier(word: &str) -> Option<u64> {
    Some(match word.to_lowercase().as_str() {
        "dozen" => 12,
        "hundred" => 100,
        "thousand" => 1_000,
        "million" => 1_000_000,
        "billion" => 1_000_000_000,
        "trillion" => 1_000_000_000_000,
        _ => return None,
    })
}
