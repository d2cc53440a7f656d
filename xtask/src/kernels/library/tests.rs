//! Reading the header.

use super::functions;

#[test]
fn functions_are_what_is_declared_outside_of_comments() {
    let header = "/* msgl_gone(1) */\nint32_t msgl_add(int32_t m, msgl_rows x);\n\
                  typedef void *msgl_stream;\nint64_t msgl_bytes(void); /* of msgl_other( */\n\
                  const char *msgl_name(void);";
    let found: Vec<_> = functions(header).into_iter().collect();
    assert_eq!(found, ["msgl_add", "msgl_bytes", "msgl_name"]);
    assert!(functions("int main(void); int my_msgl_add(void);").is_empty());
}
