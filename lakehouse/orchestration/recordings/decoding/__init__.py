"""Raw messages to Arrow columns, one decoder per encoding.

The decoded layout
------------------
A decoder turns the payloads of one channel into a `pa.RecordBatch` with one row per message and one column per field
of the message, in the order of the definition. There is no time column: times belong to the container.

ROS messages (CDR and ROS 1 serialization), as `ros_types.decoded_schema` derives them:

| ROS                                   | Arrow                                                                    |
|---------------------------------------|--------------------------------------------------------------------------|
| `bool`                                | `bool`                                                                   |
| `int8..int64`, `uint8..uint64`        | the same; `byte` and `char` are `uint8`                                  |
| `float32`, `float64`                  | `float`, `double`                                                        |
| `string`, `wstring`, bounded or not   | `string`                                                                 |
| `time`, `duration` (ROS 1) and `builtin_interfaces/msg/{Time,Duration}` | `struct<sec: int32, nanosec: uint32>`  |
| a message                             | `struct` of its fields                                                   |
| `T[n]`                                | `fixed_size_list<T>[n]`                                                  |
| `T[]`, `T[<=n]`                       | `list<T>`                                                                |
| `uint8[]`, `byte[]`, `char[]`         | `binary` (the fixed `uint8[n]` stays a `fixed_size_list<uint8>[n]`)      |
| a message without fields              | `struct<structure_needs_at_least_one_member: uint8>`, ROS 2's own padding |

So `std_msgs/msg/Header` is `struct<stamp: struct<sec: int32, nanosec: uint32>, frame_id: string>`, and from ROS 1 it
is `struct<seq: uint32, stamp: ..., frame_id: string>`. Field names are those of the definition, letter by letter.
Every field is nullable by declaration, and no ROS value is ever null. List children are called `item`. Constants are
not columns. Type names are always `package/msg/Type`.

Messages that cannot be decoded have no row; the decoder says which ones and why.
"""
