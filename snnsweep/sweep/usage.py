"""What a trial's process took of its machine, for MLflow's page of system metrics."""

import time

import psutil
import torch


class Usage:
    """Since it was made, or since the last look."""

    def __init__(self, device: torch.device):
        self._process, self._device = psutil.Process(), device
        self._mark()

    def look(self) -> dict[str, float]:
        """By name: `process_cpu_utilization_percentage` (100 is one core), the process's memory, and on CUDA the peak
        of torch's own in this process since the last look.
        """
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        found = {
            "system/process_cpu_utilization_percentage": round(100 * cpu / max(wall, 1e-9), 1),
            "system/process_memory_usage_megabytes": round(self._process.memory_info().rss / 1e6, 1),
        }
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device) / 1e6
            found["system/process_gpu_memory_peak_megabytes"] = round(peak, 1)
        self._mark()
        return found

    def _mark(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
