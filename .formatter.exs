# What `mix format` formats.
[
  inputs: ["{mix,.formatter}.exs", "{mix,src,demo,bench,erl_test}/**/*.{ex,exs}"]
]
