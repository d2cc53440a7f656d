//! Against dates worked out by `date -u`.

use super::*;

#[test]
fn known_moments() {
    for (seconds, expected) in [
        (0, "1970-01-01 00:00:00 Thursday 001"),
        (951_782_399, "2000-02-28 23:59:59 Monday 059"),
        (951_782_400, "2000-02-29 00:00:00 Tuesday 060"),
        (1_735_689_599, "2024-12-31 23:59:59 Tuesday 366"),
        (1_785_000_000, "2026-07-25 17:20:00 Saturday 206"),
        (4_107_542_400, "2100-03-01 00:00:00 Monday 060"),
    ] {
        assert_eq!(DateTime::from_unix(seconds).strftime("%Y-%m-%d %H:%M:%S %A %j"), expected);
    }
}

#[test]
fn directives() {
    let morning = DateTime::from_unix(1_767_596_645); // 2026-01-05 07:04:05, a Monday
    for (format, expected) in [
        ("%d %b %Y", "05 Jan 2026"),
        ("%-d %B %y", "5 January 26"),
        ("%I:%M %p", "07:04 AM"),
        ("%a %F %T %Z", "Mon 2026-01-05 07:04:05 UTC"),
        ("100%% %q %", "100% %q %"),
        ("%-q %-", "%-q %-"),
    ] {
        assert_eq!(morning.strftime(format), expected, "{format}");
    }
}
