/**
 * The smallest guest that can be checked: a boot sector that for ever walks all pages of a range and adds one to the first dword of each.
 * It prints a letter a pass (A to Z and again). Wherever it is stopped, the pages before its place in the walk hold n + 1 and the
 * others n - a page that was lost, or that came from another moment, shows.
 *
 * The walk: index = (index * multiplier + increment) mod pageCount, a power of two. With multiplier 1 and increment 1 it is sequential;
 * a multiplier of 4k + 1 with an odd increment visits every page once a pass as well, in an order that looks random (Hull and Dobell).
 */
export interface BootProgram {
  /** First byte of the range, guest physical; page aligned, at least 1 MiB. */
  readonly start: number;
  /** Pages of 4 KiB in the range, a power of two. */
  readonly pageCount: number;
  readonly order: 'sequential' | 'random';
  /** Turns of an empty loop after each page: 0 dirties as fast as it goes. */
  readonly spin: number;
  /**
   * After each pass the guest sleeps until the next interrupt of its timer (18.2 a second, as the BIOS leaves it): a gigabyte a second of
   * 64 MiB is dirtied all the same, and the processor is left to others. Without, it dirties as fast as it goes.
   */
  readonly rests: boolean;
  /**
   * After its second pass it goes to sleep once (ACPI S3). Waking is a reset that keeps memory: the BIOS, to which nobody has said where to go on, boots
   * the program again, and that goes on with its third pass.
   */
  readonly sleeps: boolean;
}

export const PAGE = 4096;
export const MIB = 1024 * 1024;

export function bootProgram(options: Partial<BootProgram> = {}): BootProgram {
  const program: BootProgram = {
    start: MIB,
    pageCount: 4096,
    order: 'sequential',
    spin: 0,
    rests: false,
    sleeps: false,
    ...options,
  };
  if (program.pageCount < 2 || !Number.isInteger(Math.log2(program.pageCount))) throw new RangeError('pageCount');
  if (program.start % PAGE !== 0 || program.start < MIB) throw new RangeError('start');
  return program;
}

/** Multiplier and increment of the walk. */
export function stepOf(program: BootProgram): { readonly multiplier: number; readonly increment: number } {
  return program.order === 'sequential'
    ? { multiplier: 1, increment: 1 }
    : { multiplier: 0x5851_f42d, increment: 0x1405_7b7d };
}

/** Indexes of the pages in the order of a pass. */
export function walkOf(program: BootProgram): Uint32Array {
  const { multiplier, increment } = stepOf(program);
  const walk = new Uint32Array(program.pageCount);
  let index = program.pageCount - 1;
  for (let place = 0; place < program.pageCount; place++) {
    index = ((Math.imul(index, multiplier) + increment) & (program.pageCount - 1)) >>> 0;
    walk[place] = index;
  }
  return walk;
}

const ORIGIN = 0x7c00;
const COM1 = 0x3f8;
/** Interrupt descriptor table: only the timer's entry is ever used, vector 8 as the BIOS has set the interrupt controller. */
const IDT = 0x1000;
const TIMER_VECTOR = 8;
/** Of the power management block, where the BIOS puts it on pc and q35 (0x600): sleep type 1, which is S3 on both, and sleep enable. */
const PM1A_CONTROL = 0x604;
const SLEEP_S3 = (1 << 10) | (1 << 13);
/** Behind the counter of the first page: it has slept. No BIOS leaves such a word there. */
const SLEPT = 0x5350_454c;
const SLEPT_OFFSET = 4;
/** The letter of the pass that it sleeps before. */
const LETTER_AWAKE = 0x43;

/** The 512 bytes. The BIOS loads them at 0x7c00 and jumps there in real mode. */
export function bootSector(program: BootProgram): Buffer {
  const { multiplier, increment } = stepOf(program);
  const mask = program.pageCount - 1;
  const code = new Assembler(ORIGIN);

  code.bytes(0xfa); //                                        cli
  code.bytes(0x31, 0xc0, 0x8e, 0xd8); //                      xor ax, ax; mov ds, ax
  code.bytes(0xe4, 0x92, 0x0c, 0x02, 0xe6, 0x92); //          in al, 0x92; or al, 2; out 0x92, al     (A20 on)
  code.bytes(0x0f, 0x01, 0x16).word('gdtr'); //               lgdt [gdtr]
  code.bytes(0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0); // mov eax, cr0; or al, 1; mov cr0, eax
  code.bytes(0xea).word('protected').bytes(0x08, 0x00); //    jmp 08:protected

  code.label('gdt').bytes(...Array(8).fill(0)); //            null
  code.bytes(0xff, 0xff, 0, 0, 0, 0x9a, 0xcf, 0); //          08: code, base 0, 4 GiB, 32 bit
  code.bytes(0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0); //          10: data, base 0, 4 GiB
  code.label('gdtr').bytes(23, 0).dword('gdt'); //            limit, base
  code
    .label('idtr')
    .bytes(TIMER_VECTOR * 8 + 7, 0)
    .dword(IDT);

  code.label('timer').bytes(0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf); // push eax; mov al, end of interrupt; out 0x20, al; pop eax; iret

  code.label('protected');
  code.bytes(0x66, 0xb8, 0x10, 0x00); //                      mov ax, 0x10
  code.bytes(0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0); //          mov ds, ax; mov es, ax; mov ss, ax
  code.bytes(0xbc).dword(ORIGIN); //                          mov esp, 0x7c00

  // A gate of selector 08 to `timer`, which lies below 64 KiB; all other interrupts stay masked.
  code.bytes(0xb8).dword('timer'); //                         mov eax, timer
  code.bytes(0x0d, 0x00, 0x00, 0x08, 0x00); //                or eax, 08 << 16
  code.bytes(0xa3).dword(IDT + TIMER_VECTOR * 8); //          mov [gate], eax
  code
    .bytes(0xc7, 0x05)
    .dword(IDT + TIMER_VECTOR * 8 + 4)
    .dword(0x8e00); // mov dword [gate + 4], present interrupt gate
  code.bytes(0x0f, 0x01, 0x1d).dword('idtr'); //              lidt [idtr]
  code.bytes(0xb0, 0xfe, 0xe6, 0x21); //                      mov al, ~1; out 0x21, al
  code.bytes(0xb0, 0xff, 0xe6, 0xa1); //                      mov al, 0xff; out 0xa1, al

  const slept = () =>
    code
      .bytes(0x81, 0x3d)
      .dword(program.start + SLEPT_OFFSET)
      .dword(SLEPT); // cmp dword [slept], SLEPT
  code.bytes(0xbe).dword(mask); //                            mov esi, pageCount - 1                  (index)
  if (program.sleeps) {
    code.bytes(0xb3, LETTER_AWAKE); //                        mov bl, 'C'
    slept().bytes(0x74).near('pass'); //                      je pass
  }

  // The range is zeroed first: the BIOS may have used it.
  code.bytes(0xbf).dword(program.start); //                   mov edi, start
  code.label('clear');
  code.bytes(0xc7, 0x07, 0, 0, 0, 0); //                      mov dword [edi], 0
  code.bytes(0x81, 0xc7).dword(PAGE); //                      add edi, 4096
  code.bytes(0x81, 0xff).dword(program.start + program.pageCount * PAGE); // cmp edi, end
  code.bytes(0x72).near('clear'); //                          jb clear

  code.bytes(0xb3, 0x41); //                                  mov bl, 'A'

  code.label('pass');
  code.bytes(0xbd).dword(program.pageCount); //               mov ebp, pageCount
  code.label('page');
  code.bytes(0x69, 0xf6).dword(multiplier); //                imul esi, esi, multiplier
  code.bytes(0x81, 0xc6).dword(increment); //                 add esi, increment
  code.bytes(0x81, 0xe6).dword(mask); //                      and esi, pageCount - 1
  code.bytes(0x89, 0xf7, 0xc1, 0xe7, 0x0c); //                mov edi, esi; shl edi, 12
  code.bytes(0xff, 0x87).dword(program.start); //             inc dword [edi + start]
  code.bytes(0xb9).dword(program.spin + 1); //                mov ecx, spin + 1
  code.label('spin');
  code.bytes(0x49, 0x75).near('spin'); //                     dec ecx; jnz spin
  code.bytes(0x4d, 0x75).near('page'); //                     dec ebp; jnz page

  code.bytes(0x66, 0xba).half(COM1 + 5); //                   mov dx, line status
  code.label('wait').bytes(0xec, 0xa8, 0x20); //              in al, dx; test al, 0x20                (room for a byte?)
  code.bytes(0x74).near('wait'); //                           jz wait
  code.bytes(0x66, 0xba).half(COM1); //                       mov dx, data
  code.bytes(0x88, 0xd8, 0xee); //                            mov al, bl; out dx, al
  if (program.rests) code.bytes(0xfb, 0xf4, 0xfa); //         sti; hlt; cli
  code.bytes(0xfe, 0xc3, 0x80, 0xfb, 0x5b); //                inc bl; cmp bl, 'Z' + 1
  code.bytes(0x75, 0x02, 0xb3, 0x41); //                      jne +2; mov bl, 'A'
  if (program.sleeps) {
    // A pass ends where it began: index and letter are all there is to keep, and both are known.
    code.bytes(0x80, 0xfb, LETTER_AWAKE, 0x75).near('next'); // cmp bl, 'C'; jne next
    slept().bytes(0x74).near('next'); //                      je next
    code
      .bytes(0xc7, 0x05)
      .dword(program.start + SLEPT_OFFSET)
      .dword(SLEPT); // mov dword [slept], SLEPT
    code.bytes(0x66, 0xba).half(PM1A_CONTROL); //             mov dx, PM1a control
    code.bytes(0x66, 0xb8).half(SLEEP_S3); //                 mov ax, S3
    code.bytes(0x66, 0xef, 0xf4, 0xeb, 0xfd); //              out dx, ax; hlt; jmp to the hlt
  }
  code.label('next').bytes(0xe9).far('pass'); //              jmp pass

  const sector = Buffer.alloc(512);
  code.link().copy(sector, 0);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

/** A disk that boots the program; 1 MiB, since no BIOS takes a disk of one sector for one on AHCI. */
export function bootImage(program: BootProgram): Buffer {
  return Buffer.concat([bootSector(program)], MIB);
}

/** Bytes, labels, and the two ways in which this program refers to them. */
class Assembler {
  readonly #origin: number;
  readonly #bytes: number[] = [];
  readonly #labels = new Map<string, number>();
  readonly #fixups: {
    readonly at: number;
    readonly size: 1 | 2 | 4;
    readonly relative: boolean;
    readonly label: string;
  }[] = [];

  constructor(origin: number) {
    this.#origin = origin;
  }

  bytes(...bytes: number[]): this {
    this.#bytes.push(...bytes);
    return this;
  }

  label(name: string): this {
    this.#labels.set(name, this.#bytes.length);
    return this;
  }

  half(value: number): this {
    return this.bytes(value & 0xff, value >>> 8);
  }

  /** 16-bit address of a label. */
  word(label: string): this {
    return this.#fixup(2, label);
  }

  /** A 32-bit value, or the address of a label. */
  dword(value: number | string): this {
    if (typeof value === 'string') return this.#fixup(4, value);
    return this.half(value & 0xffff).half(value >>> 16);
  }

  /** Distance of a label from the next instruction, in one byte. */
  near(label: string): this {
    return this.#fixup(1, label);
  }

  /** The same in four bytes. */
  far(label: string): this {
    return this.#fixup(4, label, true);
  }

  #fixup(size: 1 | 2 | 4, label: string, relative = size === 1): this {
    this.#fixups.push({ at: this.#bytes.length, size, relative, label });
    return this.bytes(...Array(size).fill(0));
  }

  link(): Buffer {
    if (this.#bytes.length > 446) throw new RangeError(`boot program has ${this.#bytes.length} bytes`);
    const code = Buffer.from(this.#bytes);
    for (const { at, size, relative, label } of this.#fixups) {
      const target = this.#labels.get(label);
      if (target === undefined) throw new RangeError(`no label ${label}`);
      if (relative) code.writeIntLE(target - (at + size), at, size);
      else code.writeUIntLE(this.#origin + target, at, size);
    }
    return code;
  }
}
