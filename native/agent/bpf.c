/* Small programs for the kernel, put together by hand. See bpf.h. */
#include "bpf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { INSNS_MOST = 4096, ANY = -1, DNS_PORT = 53 };

struct program {
    struct bpf_insn insns[INSNS_MOST];
    unsigned count;
};

static void add(struct program *program, uint8_t code, unsigned target, unsigned source,
                int16_t offset, int32_t value)
{
    if (program->count < INSNS_MOST)
        program->insns[program->count++] = (struct bpf_insn){
            .code = code, .dst_reg = target & 15, .src_reg = source & 15, .off = offset, .imm = value};
}

static void load_word(struct program *program, unsigned target, unsigned source, size_t offset)
{
    add(program, BPF_LDX | BPF_MEM | BPF_W, target, source, (int16_t)offset, 0);
}

/* Skips `steps` unless the register has the value. */
static void unless_equal(struct program *program, unsigned reg, int32_t value, int16_t steps)
{
    add(program, BPF_JMP | BPF_JNE | BPF_K, reg, 0, steps, value);
}

static void result(struct program *program, int32_t value)
{
    add(program, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, value);
    add(program, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static int attach(const struct program *program, enum bpf_prog_type type,
                  enum bpf_attach_type where, int cgroup)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_type = type;
    attr.insns = (uintptr_t)program->insns;
    attr.insn_cnt = program->count;
    attr.license = (uintptr_t)"Apache-2.0";
    attr.expected_attach_type = where;
    int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
    if (fd < 0)
        return -errno;
    memset(&attr, 0, sizeof attr);
    attr.target_fd = (uint32_t)cgroup;
    attr.attach_bpf_fd = (uint32_t)fd;
    attr.attach_type = where;
    attr.attach_flags = BPF_F_ALLOW_MULTI;
    int error = syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof attr) ? -errno : 0;
    close(fd);
    return error;
}

/* Devices */

enum { TYPE = BPF_REG_2, ACCESS = BPF_REG_3, MAJOR = BPF_REG_4, MINOR = BPF_REG_5 };

static void allow_device(struct program *program, char type, int32_t major, int32_t minor)
{
    int16_t left = minor == ANY ? 3 : 4;
    unless_equal(program, TYPE, type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR, left--);
    unless_equal(program, MAJOR, major, left--);
    if (minor != ANY)
        unless_equal(program, MINOR, minor, left);
    result(program, 1);
}

int bpf_devices(int cgroup, const struct device_spec *devices, size_t count)
{
    static const int32_t usual[][2] = {{1, 3}, {1, 5}, {1, 7}, {1, 8},    {1, 9},
                                       {5, 0}, {5, 1}, {5, 2}, {136, ANY}};
    static struct program program;
    program.count = 0;
    load_word(&program, TYPE, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, access_type));
    add(&program, BPF_ALU64 | BPF_MOV | BPF_X, ACCESS, TYPE, 0, 0);
    add(&program, BPF_ALU64 | BPF_RSH | BPF_K, ACCESS, 0, 0, 16);
    add(&program, BPF_ALU64 | BPF_AND | BPF_K, TYPE, 0, 0, 0xffff);
    load_word(&program, MAJOR, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, major));
    load_word(&program, MINOR, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, minor));
    /* To make a node, or to look at one without reading or writing, is everybody's right. */
    add(&program, BPF_JMP | BPF_JGT | BPF_K, ACCESS, 0, 2, BPF_DEVCG_ACC_MKNOD);
    result(&program, 1);
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        allow_device(&program, 'c', usual[i][0], usual[i][1]);
    for (size_t i = 0; i < count; i++)
        allow_device(&program, devices[i].type, (int32_t)devices[i].major,
                     (int32_t)devices[i].minor);
    result(&program, 0);
    return attach(&program, BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, cgroup);
}

/* DNS */

static int redirect(int cgroup, enum bpf_attach_type where, uint32_t address, uint16_t from,
                    uint16_t to)
{
    static struct program program;
    program.count = 0;
    load_word(&program, BPF_REG_2, BPF_REG_1, offsetof(struct bpf_sock_addr, user_ip4));
    unless_equal(&program, BPF_REG_2, (int32_t)address, 4);
    load_word(&program, BPF_REG_2, BPF_REG_1, offsetof(struct bpf_sock_addr, user_port));
    unless_equal(&program, BPF_REG_2, htons(from), 2);
    add(&program, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, htons(to));
    add(&program, BPF_STX | BPF_MEM | BPF_W, BPF_REG_1, BPF_REG_2,
        (int16_t)offsetof(struct bpf_sock_addr, user_port), 0);
    result(&program, 1);
    return attach(&program, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, where, cgroup);
}

int bpf_redirect_dns(int cgroup, uint32_t address, uint16_t port)
{
    int error = redirect(cgroup, BPF_CGROUP_INET4_CONNECT, address, DNS_PORT, port);
    if (!error)
        error = redirect(cgroup, BPF_CGROUP_UDP4_SENDMSG, address, DNS_PORT, port);
    if (!error)
        error = redirect(cgroup, BPF_CGROUP_UDP4_RECVMSG, address, port, DNS_PORT);
    if (!error)
        error = redirect(cgroup, BPF_CGROUP_INET4_GETPEERNAME, address, port, DNS_PORT);
    return error;
}
