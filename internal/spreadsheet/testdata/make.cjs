// Makes the fixtures of SheetJS: npm install xlsx@0.18.5 && node make.cjs
const XLSX = require("xlsx");

// The same table in every file: see table_test.go.
const sheet = XLSX.utils.aoa_to_sheet([
  ["Phone", "User_Groups", "Комментарий"],
  [79991234567, "client,driver", "Иванов Пётр"],
  ["+7 999 123-45-68", "client", "naïve"],
  [],
  [89991234569, "", 12.5],
  ["79991234570", "driver", true],
  [7.999123e13, "client", -3],
]);
sheet.B5 = { t: "s", v: "client,driver", f: 'B2&""' };
sheet.C7 = { t: "e", v: 0x2a };
sheet["!ref"] = "A1:C7";

const hidden = XLSX.utils.aoa_to_sheet([["secret"], ["hidden"]]);
const workbook = XLSX.utils.book_new();
XLSX.utils.book_append_sheet(workbook, hidden, "hidden");
XLSX.utils.book_append_sheet(workbook, sheet, "Пользователи");
workbook.Workbook = { Sheets: [{ Hidden: 1 }, { Hidden: 0 }] };

XLSX.writeFile(workbook, "sheetjs.xlsx", { bookSST: true, compression: true });
XLSX.writeFile(workbook, "sheetjs-inline.xlsx", { bookSST: false, compression: true });
XLSX.writeFile(workbook, "sheetjs.xls", { bookType: "biff8", bookSST: true });
XLSX.writeFile(workbook, "sheetjs-label.xls", { bookType: "biff8", bookSST: false });
XLSX.writeFile(workbook, "excel95.xls", { bookType: "biff5", codepage: 1251 });

// Long enough for several CONTINUE records; Latin and Cyrillic strings alternate, so that strings of
// one and of two bytes a letter are cut at their ends.
const many = [["phone", "user_groups"]];
for (let i = 0; i < 900; i++) {
  many.push(["+7999" + (1000000 + i), i % 3 ? "группа " + i : "a group called " + i]);
}
const long = XLSX.utils.book_new();
XLSX.utils.book_append_sheet(long, XLSX.utils.aoa_to_sheet(many), "many");
XLSX.writeFile(long, "many.xlsx", { bookSST: true, compression: true });
