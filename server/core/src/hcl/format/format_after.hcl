# top comment
path "secret/*" {
  capabilities = ["read", "list"]
}

path "a/b" {
  policy = "write"

  # inner
  capabilities = [
    "create",
    "update",
  ] // trail

  min_wrapping_ttl = "1s"
  max_wrapping_ttl = 90

  allowed_parameters = {
    "a" = []

    b = ["x", 1]
  }

  denied_parameters {
    "*" = []
  }
}

// last
path "x" {
  capabilities = []
} /* end */

path "y" {}

name = "foo"

path "z" {
  capabilities = ["read"] # why

  required_parameters = [
    "a",

    # inside
    "b",
  ]

  comment = <<EOT
hello
  world
EOT
}
