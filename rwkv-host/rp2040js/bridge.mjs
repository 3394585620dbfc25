// Runs firmware for the RP2040: node bridge.mjs FLASH PORT
//
// FLASH is a file of what the flash holds, from its first byte on; UART0 is connected to the port
// of this machine; what the firmware logs by semihosting goes to the standard output.
import { readFileSync, writeSync } from 'node:fs';
import { connect } from 'node:net';
import { ConsoleLogger, LogLevel, RP2040 } from 'rp2040js';

// The core runs at 125 MHz.
const NANOS_PER_CYCLE = 8;
// Instructions between two looks at the UART, and between two looks at the socket.
const BURST = 256;
const SLICE = 256 * BURST;

// Where the ROM puts the second stage of the boot loader, and below it the stack for it.
const RAM = 0x20000000;
const STAGE2 = 0x20041f00;

// Operations of semihosting, and its breakpoint.
const SEMIHOSTING = 0xab;
const SYS_OPEN = 0x01;
const SYS_WRITE = 0x05;
const SYS_EXIT_EXTENDED = 0x20;
const STDOUT = 1;

const [flash, port] = process.argv.slice(2);
const mcu = new RP2040();
mcu.logger = new ConsoleLogger(LogLevel.Error, true);
const { clock, core } = mcu;
const [uart] = mcu.uart;

// What the socket brought and the UART has no room for yet, what the firmware sent, and the code
// with which it left, if it has.
let received = [];
let sent = [];
let code = null;

uart.onByte = (byte) => sent.push(byte);

mcu.onBreak = (number) => {
  const [operation, block] = core.registers;
  const word = (index) => mcu.readUint32(block + 4 * index);
  if (number !== SEMIHOSTING) {
    console.error(`breakpoint ${number} at ${core.PC.toString(16)}`);
    code = 1;
  } else if (operation === SYS_OPEN) {
    core.registers[0] = STDOUT;
  } else if (operation === SYS_WRITE) {
    const [start, length] = [word(1), word(2)];
    writeSync(word(0), Uint8Array.from({ length }, (_, index) => mcu.readUint8(start + index)));
    core.registers[0] = 0;
  } else if (operation === SYS_EXIT_EXTENDED) {
    code = word(1);
  } else {
    console.error(`semihosting operation ${operation} is not there`);
    code = 1;
  }
};

// What the ROM does at boot. The second stage sets the flash up and, having no caller to return
// to, goes on to the vector table behind itself.
mcu.flash.set(readFileSync(flash));
mcu.sram.set(mcu.flash.subarray(0, 256), STAGE2 - RAM);
[core.SP, core.LR, core.PC] = [STAGE2, 0, STAGE2];

const link = connect({ host: '127.0.0.1', port: Number(port), noDelay: true });
link.on('data', (bytes) => received.push(...bytes));
link.on('end', () => process.exit(0));
link.on('error', (error) => {
  console.error(error.message);
  process.exit(1);
});
link.on('connect', run);

function run() {
  for (let done = 0; done < SLICE && code === null; done += BURST) {
    while (received.length > 0 && uart.enabled && !uart.rxFIFO.full) {
      uart.feedByte(received.shift());
    }
    for (let i = 0; i < BURST && code === null; i++) {
      clock.tick(core.executeInstruction() * NANOS_PER_CYCLE);
    }
  }
  if (sent.length > 0) {
    link.write(Uint8Array.from(sent));
    sent = [];
  }
  if (code === null) {
    setImmediate(run);
  } else {
    link.end(() => process.exit(code));
  }
}
