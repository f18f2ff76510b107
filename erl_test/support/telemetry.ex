defmodule :telemetry do
  @moduledoc false
  # The little of `:telemetry` that the tests need.
  #
  # Invariant: a handler that raises is neither caught nor detached here: what it raises comes out of
  # `execute/3`, so that the tests show what the library does about it.

  @table __MODULE__

  @doc "The table lives as long as a process of its own."
  def create_table do
    parent = self()

    holder =
      spawn(fn ->
        :ets.new(@table, [:named_table, :public, :ordered_set, read_concurrency: true])
        send(parent, {self(), :ready})
        Process.sleep(:infinity)
      end)

    receive do
      {^holder, :ready} -> :ok
    end
  end

  @doc "The events of a commit that has ended."
  def events_of_batchers do
    [
      [:ferricstore, :waraft, :batcher, :slot_flush],
      [:ferricstore, :waraft, :batcher, :hot_flush],
      [:ferricstore, :batcher, :quorum_submit]
    ]
  end

  def attach(id, event, handler, config) when is_function(handler, 4) do
    if :ets.insert_new(@table, {id, event, handler, config}),
      do: :ok,
      else: {:error, :already_exists}
  end

  def attach_many(id, events, handler, config) when is_function(handler, 4) do
    if :ets.match_object(@table, {{:many, id, :_}, :_, :_, :_}) == [] do
      for event <- events, do: attach({:many, id, event}, event, handler, config)
      :ok
    else
      {:error, :already_exists}
    end
  end

  def detach(id) do
    many = {{:many, id, :_}, :_, :_, :_}
    found = :ets.match_object(@table, many) ++ :ets.lookup(@table, id)
    :ets.match_delete(@table, many)
    :ets.delete(@table, id)
    if found == [], do: {:error, :not_found}, else: :ok
  end

  def execute(event, measurements, metadata) do
    for {_id, ^event, handler, config} <- :ets.tab2list(@table),
        do: handler.(event, measurements, metadata, config)

    :ok
  end
end
