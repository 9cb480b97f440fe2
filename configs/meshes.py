"""How the devices of the machines we name are arranged. The planner says whether a run fits.

Two rules bind every choice: the rows of each micro-batch divide by `data * fsdp`, and `tensor`
divides the 8 key-value heads, as all sizes of Llama 3.1 have. The axes `context` and `stage` are 1
in all of them.

Bytes below are per device: the state is 16 bytes a parameter (float32 weight, gradient and two
moments), and a block's input, kept for the backward pass, is 2 bytes times the model's width for
each token and layer.
"""

from sharding.mesh import MeshShape

# All devices there are, one or several: eight rows a step or more, see `tiny_cpu`.
ONE_CPU = MeshShape(fsdp=-1)

# v5p:2x2x4, 16 chips of 95 GB. 8B: state 8 GB.
V5P_16 = MeshShape(fsdp=16)
# v5p:8x8x16, 1,024 chips. 70B: state 1.1 GB; two rows of 8,192: 21 GB of block inputs.
V5P_1024 = MeshShape(fsdp=1024)
# v5p:16x16x16, 4,096 chips. 405B: state 1.6 GB; two rows of 8,192 over 4 chips: 17 GB. Not fsdp
# 2,048, as the first batches have 1,024 rows.
V5P_4096 = MeshShape(fsdp=1024, tensor=4)
# v5p:8x8x16 for 128K. A step of 16M tokens has 128 rows, so that is how far rows can be split.
# 405B: state 6.3 GB, one row over 8 chips: 68 GB.
V5P_1024_LONG = MeshShape(fsdp=128, tensor=8)
# v5p:8x8x8 for annealing at 128K, where fewer rows make more steps. 405B: state 12.7 GB, 68 GB.
V5P_512_LONG = MeshShape(fsdp=64, tensor=8)

# 8 nodes of 8 H100 80 GB. 8B: state 2 GB.
H100_64 = MeshShape(fsdp=64)
# 64 nodes. 70B: state 2.2 GB; rows over 8 GPUs.
H100_512 = MeshShape(fsdp=64, tensor=8)
# 1,024 nodes, `tensor` within a node, a copy of the model on each 1,024 GPUs. 405B: state 6.3 GB.
H100_8192 = MeshShape(data=8, fsdp=128, tensor=8)
