/* eBPF programs of cgroups (bpf(2)): what cgroup version 2 has instead of a devices controller, and
 * the way of DNS queries to the agent. */
#ifndef HYPER_BPF_H
#define HYPER_BPF_H

#include "spec.h"

/* Lets the cgroup use Docker's default devices (moby, oci/devices_linux.go) and those of the spec, and
 * make nodes of any, but nothing else. 0 or -errno. */
int bpf_devices(int cgroup, const struct device_spec *devices, size_t count);
/* Sends what goes to port 53 of `address` (network order) to `port` there, and makes answers seem to
 * come from 53. 0 or -errno. */
int bpf_redirect_dns(int cgroup, uint32_t address, uint16_t port);

#endif
