# What `mix format` formats.
[
  inputs: ["{mix,.formatter}.exs", "{mix,src,erl_test,bench}/**/*.{ex,exs}"]
]
