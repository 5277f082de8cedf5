import { VCPUS_MAX } from './control-words.ts';
import { workloadError } from './errors.ts';
import { DEVICE_MEMORY_BYTES_MAX, PAGE_SIZE, RAM_BYTES_MAX, RAM_BYTES_MIN } from './layout.ts';
import { PATTERNS, type Pattern } from './program.ts';

const MIB = 1024 * 1024;
/** Sizes of host pages there are on x86, bytes. */
const HOST_PAGES: readonly number[] = [PAGE_SIZE, 2 * MIB, 1024 * MIB];

export interface WorkloadOptions {
  /** Bytes of main RAM, 1 MiB .. 1 TiB, a multiple of 4096. Two small blocks (vram 1 MiB, rom 256 KiB) come on top. */
  readonly ram: number;
  /** 1..64 */
  readonly vcpus: number;
  /** Bytes of pages written per second by all vCPUs together (4096 an operation), or as fast as they can. Default 200 MB/s. */
  readonly dirtyRate?: number | 'max';
  /** Default hot-cold. */
  readonly pattern?: Pattern;
  /** uint32, default 1. */
  readonly seed?: number;
  /** Share of the pages that hold incompressible data in the beginning, 0..1; the others are zero. Default 0.75. */
  readonly fill?: number;
  /**
   * Host pages of the main RAM, bytes: 4 KiB, 2 MiB or 1 GiB, as if it lay on hugetlbfs; the RAM must be whole ones. It is the unit of postcopy, and
   * both sides must have the same. Default 4 KiB.
   */
  readonly hostPage?: number;
  /** Default `workload-11.1`. */
  readonly machineType?: string;
  /** 16 bytes */
  readonly uuid?: Uint8Array;
  /** Wait for a migration: no memory, no vCPUs until it comes. Program parameters are then those of the source. Default false. */
  readonly incoming?: boolean;
  /** With `incoming`: take the memory and start the vCPUs now, so that no page fault slows the migration when it comes. Default false. */
  readonly prealloc?: boolean;
  /** Guest memory that devices write to, bytes, a multiple of the page size; a RAM block of its own. Default 0: none. */
  readonly deviceMemory?: number;
}

export const WORKLOAD_DEFAULTS = {
  dirtyRate: 200e6,
  pattern: 'hot-cold',
  seed: 1,
  fill: 0.75,
  hostPage: PAGE_SIZE,
  machineType: 'workload-11.1',
  incoming: false,
  prealloc: false,
  deviceMemory: 0,
} as const satisfies Partial<WorkloadOptions>;

export type CheckedOptions = Required<Omit<WorkloadOptions, 'uuid'>> & Pick<WorkloadOptions, 'uuid'>;

/** With defaults filled in. Throws WORKLOAD_OPTION. */
export function checkOptions(options: WorkloadOptions): CheckedOptions {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const checked = { ...WORKLOAD_DEFAULTS, ...given } as CheckedOptions;
  const { ram, vcpus, dirtyRate, pattern, seed, fill, hostPage, machineType, uuid, deviceMemory } = checked;
  const require = (option: keyof WorkloadOptions, holds: boolean, range: string) => {
    if (holds) return;
    const found = String(checked[option]);
    throw workloadError({ code: 'WORKLOAD_OPTION', option, found }, `${option} must be ${range}, not ${found}`);
  };
  require('ram', ram >= RAM_BYTES_MIN &&
    ram <= RAM_BYTES_MAX &&
    ram % PAGE_SIZE === 0, `1 MiB to 1 TiB in whole pages of ${PAGE_SIZE} bytes`);
  require('hostPage', HOST_PAGES.includes(hostPage) &&
    ram % hostPage === 0, `4 KiB, 2 MiB or 1 GiB, of which the RAM is a multiple`);
  require('vcpus', Number.isInteger(vcpus) && vcpus >= 1 && vcpus <= VCPUS_MAX, `1 to ${VCPUS_MAX}`);
  require('dirtyRate', dirtyRate === 'max' ||
    (Number.isSafeInteger(dirtyRate) && dirtyRate >= 0), 'a whole number of bytes a second, or max');
  require('pattern', PATTERNS.includes(pattern), `one of ${PATTERNS.join(', ')}`);
  require('seed', seed >>> 0 === seed, '0 to 4294967295');
  require('fill', fill >= 0 && fill <= 1, '0 to 1');
  require('machineType', /^[!-~]{1,255}$/.test(machineType), '1 to 255 printable characters');
  require('deviceMemory', deviceMemory >= 0 &&
    deviceMemory <= DEVICE_MEMORY_BYTES_MAX &&
    deviceMemory % PAGE_SIZE === 0, `0 to 1 GiB in whole pages of ${PAGE_SIZE} bytes`);
  require('uuid', uuid === undefined || uuid.length === 16, '16 bytes');
  return checked;
}
