//! Small named fields packed into the 64 bits of [`Ins::imm`](super::Ins).
//!
//! [`immediate!`] declares a struct with the bits of each field. The decoder packs it, the
//! instruction unpacks it: both are shifts and masks by constants.

/// A value stored in some bits of an immediate.
pub trait Field: Copy {
    fn to_bits(self) -> u64;
    /// The value that [`to_bits`](Self::to_bits) made these bits of.
    fn from_bits(bits: u64) -> Self;
}

/// An enum whose variants are PTX modifiers.
pub trait Choice: Sized + Copy + 'static {
    /// Each variant with its modifier.
    const ALL: &'static [(&'static str, Self)];
}

macro_rules! integer_field {
    ($($t:ty as $unsigned:ty),+) => {$(
        impl Field for $t {
            #[inline(always)]
            fn to_bits(self) -> u64 {
                u64::from(self as $unsigned)
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> $t {
                bits as $t
            }
        }
    )+};
}

integer_field!(u8 as u8, u32 as u32, i32 as u32);

impl Field for bool {
    #[inline(always)]
    fn to_bits(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn from_bits(bits: u64) -> bool {
        bits != 0
    }
}

/// Declares a struct that packs into an immediate: `field: type [bits]`, lowest bits first.
macro_rules! immediate {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$doc:meta])* $field_vis:vis $field:ident: $ty:ty [$bits:literal],)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        $vis struct $name {
            $($(#[$doc])* $field_vis $field: $ty,)+
        }

        impl $name {
            const BITS: u32 = 0 $(+ $bits)+;

            #[inline(always)]
            $vis fn pack(self) -> u64 {
                use $crate::machine::Field;
                const { assert!(Self::BITS <= 64) };
                let (mut packed, mut shift) = (0u64, 0u32);
                $(
                    let bits = Field::to_bits(self.$field);
                    debug_assert!(bits <= u64::MAX >> (64 - $bits), "the field does not fit");
                    packed |= bits << shift;
                    shift += $bits;
                )+
                let _ = shift;
                packed
            }

            #[inline(always)]
            $vis fn unpack(packed: u64) -> $name {
                use $crate::machine::Field;
                let mut shift = 0u32;
                $(
                    let $field = Field::from_bits(packed >> shift & u64::MAX >> (64 - $bits));
                    shift += $bits;
                )+
                let _ = shift;
                $name { $($field),+ }
            }
        }

        impl $crate::machine::Field for $name {
            #[inline(always)]
            fn to_bits(self) -> u64 {
                self.pack()
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> $name {
                $name::unpack(bits)
            }
        }
    };
}

/// Declares an enum that is a [`Choice`] of PTX modifiers and a [`Field`].
macro_rules! choice {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $first:ident = $first_text:literal $(, $variant:ident = $text:literal)* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        $vis enum $name {
            $first,
            $($variant,)*
        }

        impl $crate::machine::Choice for $name {
            const ALL: &'static [(&'static str, $name)] =
                &[($first_text, $name::$first) $(, ($text, $name::$variant))*];
        }

        impl $crate::machine::Field for $name {
            #[inline(always)]
            fn to_bits(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> $name {
                $(if bits == $name::$variant as u64 {
                    return $name::$variant;
                })*
                debug_assert!(bits == 0, "not a variant");
                $name::$first
            }
        }
    };
}

/// Makes a type a [`Field`] by the index of its values in a list.
macro_rules! listed {
    ($t:ty, $values:expr) => {
        impl $crate::machine::Field for $t {
            fn to_bits(self) -> u64 {
                $values.iter().position(|v| *v == self).unwrap_or(0) as u64
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> $t {
                debug_assert!((bits as usize) < $values.len(), "not in the list");
                *$values.get(bits as usize).unwrap_or(&$values[0])
            }
        }
    };
}

listed!(crate::types::Ty, crate::types::Ty::ALL);

pub(crate) use {choice, immediate, listed};

#[cfg(test)]
mod tests {
    use super::{Choice, Field};

    choice! {
        enum Colour {
            Red = "red",
            Green = "green",
        }
    }

    immediate! {
        struct Inner {
            small: u8 [3],
            offset: i32 [32],
        }
    }

    immediate! {
        struct Outer {
            inner: Inner [35],
            colour: Colour [2],
            last: bool [1],
        }
    }

    #[test]
    fn fields_survive_packing() {
        for &(_, colour) in Colour::ALL {
            for (small, offset, last) in [(0, 0, false), (7, -1, true), (5, i32::MIN, false)] {
                let packed = Outer {
                    inner: Inner { small, offset },
                    colour,
                    last,
                }
                .pack();
                let back = Outer::unpack(packed);
                assert_eq!(back.colour, colour);
                assert_eq!((back.inner.small, back.inner.offset), (small, offset));
                assert_eq!(back.last, last);
                assert_eq!(back.to_bits(), packed);
            }
        }
    }
}
