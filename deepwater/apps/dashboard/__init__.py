"""The dashboard: a terminal program over a store, that records by itself or looks on while another process does.

Left to right, a module imports only modules to its left; only `app` knows Textual::

    numbers | catalogue feeds recorders livebook | prints | model
    | commands engine recording plain | session | panels | app

- *Data* (`catalogue` to `model`) reads feeds through the public API and makes one `View` of plain values a look. It
  holds nothing up, and outlives whatever happens to the store: no store yet, a feed deleted under it, a recorder
  killed, another store in its place.
- *Commands* (`commands`, `engine`, `session`): what is typed, and who does it.
- *View* (`panels`: pure functions from a `View` and a size to lines; `plain`: lines for a pipe; `app`: the terminal).

**The recorder is a child process** (`recording`), and what is shown of it comes out of the store, as for any other
recorder. In a thread it would share the interpreter lock with the drawing: each repaint would be a frame that is taken
late. As a child it records at full speed while the terminal hangs, and the dashboard may be killed: the child then sees
the end of its stdin, stops between two frames, flushes and ends. Each product is a recording of its own in it
(connection, store handle, feeds), so `sub` and `unsub` leave no gap in the others; it costs a connection a product.

**Venues.** Which feeds are a product's the venues say (`catalogue`); nothing else here knows one. A dashboard records
one venue and shows all.

**Attached or not** is no mode that is chosen: whenever another process writes a feed of a venue's in this store, the
commands that would record say whose it is, and do nothing; once it is gone they work.

Rejected: *one recording of all products, begun anew for each `sub`* (a gap in every feed at each command); *asking the
child for its state* (two sources of the same numbers, and none for a foreign recorder).
"""
