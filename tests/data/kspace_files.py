"""Small k-space, what it should reconstruct to, and files of raw acquisitions."""

import h5py
import numpy as np

COUNTERS = [(name, "<u2") for name in ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast",
                                       "phase", "repetition", "set", "segment")]  # fmt: skip
HEAD = np.dtype([
    ("version", "<u2"), ("flags", "<u8"), ("measurement_uid", "<u4"), ("scan_counter", "<u4"),
    ("acquisition_time_stamp", "<u4"), ("physiology_time_stamp", "<u4", (3,)), ("number_of_samples", "<u2"),
    ("available_channels", "<u2"), ("active_channels", "<u2"), ("channel_mask", "<u8", (16,)), ("discard_pre", "<u2"),
    ("discard_post", "<u2"), ("center_sample", "<u2"), ("encoding_space_ref", "<u2"), ("trajectory_dimensions", "<u2"),
    ("sample_time_us", "<f4"), ("position", "<f4", (3,)), ("read_dir", "<f4", (3,)), ("phase_dir", "<f4", (3,)),
    ("slice_dir", "<f4", (3,)), ("patient_table_position", "<f4", (3,)),
    ("idx", np.dtype([*COUNTERS, ("user", "<u2", (8,))])), ("user_int", "<i4", (8,)), ("user_float", "<f4", (8,)),
])  # fmt: skip
RECORD = np.dtype([("head", HEAD), ("traj", h5py.vlen_dtype(np.float32)), ("data", h5py.vlen_dtype(np.float32))])


def random_kspace(slices=3, coils=2, height=16, width=12, seed=0):
    """complex64 (S, C, H, W)."""
    draw = np.random.default_rng(seed)
    shape = (slices, coils, height, width)
    return (draw.normal(size=shape) + 1j * draw.normal(size=shape)).astype(np.complex64)


def reference_target(kspace, crop):
    """float64 (S, h, w): root sums of squares of k-space (S, C, H, W), by NumPy's shifts."""
    axes = (-2, -1)
    shifted = np.fft.ifftshift(kspace.astype(np.complex128), axes=axes)
    images = np.fft.fftshift(np.fft.ifft2(shifted, axes=axes, norm="ortho"), axes=axes)
    top, left = ((n - c) // 2 for n, c in zip(kspace.shape[-2:], crop, strict=True))
    return np.sqrt((np.abs(images) ** 2).sum(1))[:, top : top + crop[0], left : left + crop[1]]


def readout(samples, line, slice_=0, flags=(), centre=None, **fields):
    """(head, samples) of one readout; ``samples`` complex (C, n); further ``fields`` of the head or its counters."""
    head = np.zeros((), HEAD)
    head["number_of_samples"], head["active_channels"] = samples.shape[1], len(samples)
    head["center_sample"] = samples.shape[1] // 2 if centre is None else centre
    head["flags"] = sum(1 << (flag - 1) for flag in flags)
    head["idx"]["kspace_encode_step_1"], head["idx"]["slice"] = line, slice_
    for name, value in fields.items():
        (head["idx"] if name in head["idx"].dtype.names else head)[name] = value
    return head, np.ascontiguousarray(samples, np.complex64)


def write_raw(path, header, readouts, group="dataset"):
    """An ISMRMRD file of ``readouts`` with the XML ``header``."""
    with h5py.File(path, "w") as file:
        made = file.create_group(group)
        made.create_dataset("xml", (1,), h5py.string_dtype())[0] = header
        records = made.create_dataset("data", (len(readouts),), RECORD)
        for number, (head, samples) in enumerate(readouts):
            record = np.empty(1, RECORD)[0]
            record["head"], record["traj"] = head, np.zeros(0, np.float32)
            record["data"] = samples.view(np.float32).ravel()
            records[number] = record
    return path


def write_cfl(path, array):
    """BART's pair of files for ``array``, whose axes are BART's dimensions."""
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, array.shape))} \n")
    path.with_suffix(".cfl").write_bytes(np.asarray(array, np.complex64).tobytes(order="F"))
    return path.with_suffix(".cfl")
