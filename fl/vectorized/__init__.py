"""Many clients trained as one program.

`scheduler` assigns clients to lanes, `lanes` holds their weights as rows and steps them, and
`gradients` differentiates all lanes in one pass; with `padding`, that is the whole engine. The rest
makes passes faster: `tracing` records a pass as a flat list of operators, `verification` checks it,
`graph_cache` keeps it, `aot` compiles it, `cuda_graphs` replays it on a GPU, for which `gpu_memory`
limits the lanes, and `operators` has operators in C++.
"""
