//! A member's key in the hands of a program that breaks the rules.
