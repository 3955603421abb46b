//! Enums whose variants have names outside the crate.

/// Defines an enum and the name of each variant: `ALL` lists the variants, `as_str` and `Display` give a variant's name,
/// `from_name` reads it.
macro_rules! named_enum {
    ($(#[$meta:meta])* $vis:vis enum $enum:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $enum { $($(#[$doc])* $variant,)+ }

        impl $enum {
            /// Every variant, in the order of the documentation.
            $vis const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The variant's name.
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The variant with this name.
            $vis fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|variant| variant.as_str() == name)
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use named_enum;
