# What `mix format` formats.
[
  inputs: ["{mix,.formatter}.exs", "{mix,src,demo,bench,tools,erl_test}/**/*.{ex,exs}"]
]
