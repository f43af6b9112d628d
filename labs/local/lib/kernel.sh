# shellcheck shell=bash
# A kernel with VRF: this one, in namespaces of its own, or user-mode Linux. Sourced after env.sh.

UML_MEMORY_MIB=${LAB_MEMORY_MIB:-1024}

kernel_has_vrf() {
  [[ -n ${LAB_KERNEL:-} ]] && {
    [[ $LAB_KERNEL == native ]]
    return
  }
  [[ $EUID == 0 ]] || return 1
  unshare --net sh -c 'ip link add lab-probe type vrf table 4000' 2>/dev/null
}

# run_in_kernel COMMAND...: runs it as the job of a lab kernel and returns its exit status.
# The status comes back through a file: the exit status of user-mode Linux says nothing of the job.
run_in_kernel() {
  ((EUID == 0)) || die "the lab needs root"
  mkdir -p "$LAB_OUT/logs"
  rm -f "$LAB_OUT/status" "$LAB_OUT"/logs/*
  write_job "$@"
  if kernel_has_vrf; then
    say "lab kernel: $(uname -r), in namespaces of its own"
    run_native
  else
    say "lab kernel: user-mode Linux"
    run_uml
  fi
  [[ -s $LAB_OUT/status ]] || die "the lab kernel ended without a result"
  return "$(<"$LAB_OUT/status")"
}

# The job as a script on the host's file system: arguments survive every kind of kernel unchanged.
write_job() {
  {
    printf '#!/bin/bash\n'
    printf 'export LAB_OUT=%q LAB_BIN=%q LAB_FRR=%q LAB_T0=%q TERM=%q\n' "$LAB_OUT" "$LAB_BIN" "${LAB_FRR:-}" "$LAB_T0" "${TERM:-dumb}"
    printf 'export LAB_AGENT_TUNABLES=%q\n' "$LAB_AGENT_TUNABLES"
    printf 'cd %q\n' "$LAB_REPO"
    printf '%q ' "$@"
    printf '\n'
  } >"$LAB_OUT/job"
  chmod +x "$LAB_OUT/job"
}

run_native() {
  unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
    "$LAB_LOCAL/lib/native-init" "$LAB_OUT/job" "$LAB_OUT/status"
}

run_uml() {
  local uml=(
    linux.uml "mem=${UML_MEMORY_MIB}M" root=/dev/root rootfstype=hostfs rootflags=/ rw quiet
    "init=$LAB_LOCAL/lib/uml-init" "job=$LAB_OUT/job" "status=$LAB_OUT/status"
    con=null 'con0=fd:0,fd:1'
  )
  # Interfaces that lead out of the lab, in user-mode Linux's words (`vec0:transport=...`).
  [[ -z ${LAB_UML_DEVICE:-} ]] || uml+=("$LAB_UML_DEVICE")
  # Another nf_tables than the kernel's own (lib/nf-tables.sh).
  [[ -z ${LAB_NF_TABLES:-} ]] || uml+=("nf_tables=$LAB_NF_TABLES")
  command -v linux.uml >/dev/null || die "user-mode-linux is not installed"
  # The kernel's memory is a file: in /dev/shm, unless that is too small for it (a container's often is).
  local room
  room=$(df --output=avail -BM /dev/shm 2>/dev/null | tail -1)
  if ((10#0${room//[^0-9]/} < UML_MEMORY_MIB)); then export TMPDIR=$LAB_OUT; fi
  if [[ -n ${LAB_INTERACTIVE:-} ]]; then
    # The terminal belongs to the kernel's console: raw here, cooked there.
    local saved
    saved=$(stty -g)
    stty raw -echo
    "${uml[@]}" 2>"$LAB_OUT/logs/kernel" || true
    stty "$saved"
    printf '\n'
  else
    # What the kernel itself says before and after the job is kept in a file.
    "${uml[@]}" </dev/null 2>&1 | tee "$LAB_OUT/logs/console" |
      sed -u -n -e '/^@job begins/,/@job ends/{' -e '/^@job /d' -e 's/\(@job ends\)*\r*$//' -e p -e '}' || true
  fi
}
