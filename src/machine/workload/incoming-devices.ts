/** Device state as it arrives: decoded and checked section by section, taken over only when it is complete. */
import { type Description, decodeBody, globalState, measureBody, type SectionHeader } from '../../wire/index.ts';
import { Console } from './console.ts';
import {
  type ConsoleState,
  type CpuState,
  cpu,
  type DeviceStates,
  type TimerState,
  timer,
  UNLIMITED_RATE,
  type WorkloadConfig,
  workloadConfig,
  workloadConsole,
} from './devices.ts';
import { workloadError } from './errors.ts';
import { PATTERNS, type Pattern } from './program.ts';

/** Leaves 14 years at ten million a second before the counter, a double, stops counting at 2^53. */
const OPERATIONS_MAX = 2n ** 52n;

/** Run states a stream may bring: `running` starts the guest, the others are taken over. */
const RUN_STATES = ['running', 'paused', 'prelaunch', 'postmigrate', 'shutdown'] as const;
export type IncomingRunState = (typeof RUN_STATES)[number];

export interface CheckedConfig extends WorkloadConfig {
  readonly pattern: Pattern;
}

export interface IncomingStates extends DeviceStates {
  readonly config: CheckedConfig;
  readonly runState: IncomingRunState;
}

export interface OwnSizes {
  readonly ramBytes: number;
  readonly vcpuCount: number;
}

export class IncomingDevices {
  readonly #own: OwnSizes;
  readonly #cpus: (CpuState | undefined)[];
  #config: CheckedConfig | undefined;
  #timer: TimerState | undefined;
  #console: ConsoleState | undefined;
  #runState: IncomingRunState | undefined;

  constructor(own: OwnSizes) {
    this.#own = own;
    this.#cpus = Array.from({ length: own.vcpuCount });
  }

  /** Throws VmstateFault and WorkloadFault; nothing is taken over then. */
  load(section: SectionHeader, body: Buffer): void {
    const decode = <S>(description: Description<S>): S =>
      decodeBody(description, section.version, body, { stream: `section ${section.idstr}/${section.instance}` });
    switch (descriptionOf(section, this.#own.vcpuCount)) {
      case workloadConfig:
        this.#config = this.#checkedConfig(section, decode(workloadConfig));
        return;
      case timer:
        this.#timer = decode(timer);
        return;
      case cpu:
        this.#cpus[section.instance] = checkedCpu(section, decode(cpu));
        return;
      case workloadConsole:
        this.#console = checkedConsole(section, decode(workloadConsole));
        return;
      case globalState:
        this.#runState = checkedRunState(section, decode(globalState).runstate);
        return;
      default:
        throw workloadError(
          { code: 'WORKLOAD_DEVICE_UNKNOWN', idstr: section.idstr, instance: section.instance },
          `section ${section.idstr}/${section.instance}: this machine of ${this.#own.vcpuCount} vCPUs has no such device`,
        );
    }
  }

  /** Bytes of the section's body; undefined if the device is unknown or the body is not all there. Throws VmstateFault. */
  measure(section: SectionHeader, bytes: Buffer): number | undefined {
    const description = descriptionOf(section, this.#own.vcpuCount);
    return description && measureBody(description as Description<unknown>, bytes);
  }

  /** All that came. Throws WORKLOAD_DEVICES_MISSING. */
  complete(): IncomingStates {
    const cpus = this.#cpus.filter((state) => state !== undefined);
    const devices = {
      'workload-config/0': this.#config,
      'timer/0': this.#timer,
      ...Object.fromEntries(this.#cpus.map((state, instance) => [`cpu/${instance}`, state])),
      'workload-console/0': this.#console,
      'globalstate/0': this.#runState,
    };
    const missing = Object.entries(devices).flatMap(([name, state]) => (state === undefined ? [name] : []));
    if (!this.#config || !this.#timer || !this.#console || !this.#runState || missing.length > 0) {
      throw workloadError(
        { code: 'WORKLOAD_DEVICES_MISSING', devices: missing },
        `the stream has no state of ${missing.join(', ')}`,
      );
    }
    return { config: this.#config, timer: this.#timer, cpus, console: this.#console, runState: this.#runState };
  }

  #checkedConfig(section: SectionHeader, state: WorkloadConfig): CheckedConfig {
    const { ramBytes, vcpuCount } = this.#own;
    sameSize('ram_size', 'bytes of RAM', BigInt(ramBytes), state.ram_size);
    sameSize('vcpus', 'vCPUs', BigInt(vcpuCount), BigInt(state.vcpus));
    const pattern = PATTERNS.find((known) => known === state.pattern) ?? impossible(section, 'pattern', state.pattern);
    if (state.fill_ppm > 1e6) impossible(section, 'fill_ppm', String(state.fill_ppm));
    if (state.dirty_rate > BigInt(Number.MAX_SAFE_INTEGER) && state.dirty_rate !== UNLIMITED_RATE) {
      impossible(section, 'dirty_rate', String(state.dirty_rate));
    }
    return { ...state, pattern };
  }
}

function descriptionOf(section: SectionHeader, vcpuCount: number) {
  if (section.kind !== 'full') return undefined;
  if (section.idstr === 'cpu') return section.instance < vcpuCount ? cpu : undefined;
  if (section.instance !== 0) return undefined;
  return [workloadConfig, timer, workloadConsole, globalState].find(({ name }) => name === section.idstr);
}

function sameSize(field: string, what: string, own: bigint, found: bigint): void {
  if (own === found) return;
  throw workloadError(
    { code: 'WORKLOAD_CONFIGURATION', field, own: String(own), found: String(found) },
    `section workload-config: the source has ${found} ${what}, this machine has ${own}`,
  );
}

function impossible(section: SectionHeader, field: string, found: string): never {
  const { idstr, instance } = section;
  throw workloadError(
    { code: 'WORKLOAD_DEVICE_STATE', idstr, instance, field, found },
    `section ${idstr}/${instance}: ${field} cannot be ${found}`,
  );
}

function checkedCpu(section: SectionHeader, state: CpuState): CpuState {
  if (state.operations > OPERATIONS_MAX) impossible(section, 'operations', String(state.operations));
  for (const [field, value] of Object.entries(state.gaps)) {
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) impossible(section, field, String(value));
  }
  return state;
}

function checkedConsole(section: SectionHeader, state: ConsoleState): ConsoleState {
  const field = Console.wrongField(state);
  if (field !== undefined)
    impossible(section, field, String(field === 'written' ? state.written : state.unread?.unread));
  return state;
}

function checkedRunState(section: SectionHeader, runstate: string): IncomingRunState {
  return RUN_STATES.find((state) => state === runstate) ?? impossible(section, 'runstate', JSON.stringify(runstate));
}
